"""What is read from and written into nnU-Net's folders: paths, splits, model folders."""
