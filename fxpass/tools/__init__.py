"""What is run around the backend: the command line, comparisons, other packages' models."""
