"""The report of a cross-validation: trials, statistics, tables, figures and the page."""
