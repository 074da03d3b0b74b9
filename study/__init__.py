"""A cross-validation: its trials on Ray, the statistics, the report."""
