"""The report of a cross-validation: read its trials, compute statistics, write tables, figures and the page."""
