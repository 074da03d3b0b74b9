"""The relaxed cells of `models.mixed_ops`, computed faster."""
