"""Relaxed edges of feature maps, made fast."""
