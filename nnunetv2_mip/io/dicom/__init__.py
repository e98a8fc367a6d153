"""DICOM: series of slices, SUV, PET and CT volumes, segmentation objects."""
