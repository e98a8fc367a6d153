"""Client side of the DM i AI tumour segmentation competition."""
