"""Fusion of view probabilities into one 3D mask."""
