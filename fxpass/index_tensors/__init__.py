"""A host model of small integer tensors: what each element holds, and what a graph makes of it."""
