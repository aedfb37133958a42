"""Pure functions from a Report to DICOM objects."""
