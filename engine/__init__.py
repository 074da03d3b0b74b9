"""What every run stands on: the training loop, its folder, checkpoints, processes and devices."""
