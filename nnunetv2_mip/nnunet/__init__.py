"""nnU-Net's folders: paths, splits, model folders, and loading a model."""
