"""Linear layers on few rows: the kernel, how it is cut, and where it is faster than cuBLAS."""
