"""What traced code does with tensors that hold numbers: it indexes, and calls operators and functions of Python."""
