"""Pictures: charts by Matplotlib, cells by Graphviz."""
