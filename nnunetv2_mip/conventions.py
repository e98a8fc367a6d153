"""Shared constants: intensity levels, spacings of view stacks, labels, file suffixes."""

# Highest level of the images that networks see; 0 is the lowest, bright is uptake (see
# `views.intensity`).
LEVEL_MAX = 255
# A level above this is body: the constants of a data set are those of its body.
BODY_LEVEL = 2
# SUV of the highest level.
DEFAULT_WINDOW_SUV = 10.0
# Projection angles of a view set: their number, and the arc they cover in degrees.
DEFAULT_VIEWS = 48
DEFAULT_ARC_DEG = 180.0
AIR_HU = -1000.0
# In-plane pixel of the DM-i-AI images, mm.
PNG_PIXEL_MM = 2.0
# Spacing of a view stack along the view axis, mm. No scanner has it, so it also marks a stack.
VIEW_AXIS_SPACING_MM = 1000.0
# An image whose first spacing (of its slices) is at least this many mm is a view stack.
STACK_SPACING_MM = 500.0
# Labels of masks. `IGNORE_LABEL` of the label kind `ignore` marks pixels that are neither lesion
# nor background. nnU-Net requires it to be the highest label.
LESION = 1
IGNORE_LABEL = 2
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
