"""Losses, augmentation, optimiser and sampling of the trainers."""
