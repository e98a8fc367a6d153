"""Metrics of masks, confidence intervals, comparisons."""
