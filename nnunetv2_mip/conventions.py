"""Shared numbers: intensity levels, spacings of view stacks, labels, file suffixes."""

# Levels that networks see, 0 to this, bright is uptake (see `views.intensity`).
LEVEL_MAX = 255
# A level above this is body: the constants of a data set are those of its body.
BODY_LEVEL = 2
DEFAULT_WINDOW_SUV = 10.0
AIR_HU = -1000.0
# In-plane pixel of the DM-i-AI images.
PNG_PIXEL_MM = 2.0
# Spacing of a view stack along the view axis; no scanner has it, so it also marks a stack.
VIEW_AXIS_SPACING_MM = 1000.0
# A first spacing from here on is that of a stack.
STACK_SPACING_MM = 500.0
# Labels of masks. `IGNORE_LABEL`, of the label kind `ignore`, is what is neither lesion nor
# background; nnU-Net wants it to be the highest.
LESION = 1
IGNORE_LABEL = 2
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
