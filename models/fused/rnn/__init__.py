"""Relaxed edges of sequences, made fast."""
