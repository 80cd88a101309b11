"""What grows lies in buffers, and caches are read through windows: what is filled before a call, and taken out after it."""
