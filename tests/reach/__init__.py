"""Caches of every shape: minimal models, one per pattern, and packages that nobody here wrote."""
