"""Torch's precompile cache: one process compiles, the next one loads."""
