"""What every run stands on: the training loop, its run folder and checkpoints, devices, processes, and scores."""
