"""Recurrent ops: a faster tanh RNN for CPUs, and cells that run recurrences in stacks for GPUs."""
