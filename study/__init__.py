"""Running a cross-validation: its trials, Ray, and the live table."""
