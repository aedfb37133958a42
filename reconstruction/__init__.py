"""Voxels and geometry: instances become volumes, volumes become pictures; knows no study, queue or network."""
