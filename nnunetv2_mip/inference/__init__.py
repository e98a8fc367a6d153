"""Trained models applied to images, view stacks and studies."""
