"""Files and DICOM series read into volumes in canonical axes, and masks written back."""
