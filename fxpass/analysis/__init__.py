"""What a graph does with positions: which symbols are such, where caches are sliced, and what is valid of what is read."""
