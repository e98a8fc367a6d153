"""Trainer classes; `nnUNet_extTrainer` points to this folder as installed."""
