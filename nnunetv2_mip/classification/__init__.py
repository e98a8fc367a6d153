"""Healthy or with lesions, from the views of a study."""
