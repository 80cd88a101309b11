"""What grows becomes a buffer, and what is read of a cache a window."""
