"""Pictures: charts, and drawings of cells."""
