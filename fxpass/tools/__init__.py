"""What runs around the backend: the command line, comparisons, models of other packages."""
