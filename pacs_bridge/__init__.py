"""The edges and the composition root: DICOM in, DICOM out, the archive, the command line."""
