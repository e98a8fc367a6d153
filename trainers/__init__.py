"""Trainer classes; `nnUNet_extTrainer` names this folder as installed."""
