"""What is kept of a compiled graph in torch's precompile cache, for another process."""
