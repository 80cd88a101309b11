"""The nodes that edits insert: the twins of numbers, masks of what is valid, filled operands."""
