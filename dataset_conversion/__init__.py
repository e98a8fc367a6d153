"""Converters: from studies and PNGs on disk to nnU-Net raw data sets of MIP views."""
