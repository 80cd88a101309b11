"""How kernels are launched, what they are written for, and when they may read memory."""
