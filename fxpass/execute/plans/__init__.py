"""What is decided before anything is compiled: what gets a buffer, and which cores there are."""
