"""Tumour segmentation in PET on rotating maximum intensity projections, inside nnU-Net v2."""

__version__ = "0.3.0"
