"""What a CUDA graph needs around it: inputs at fixed addresses, index tensors as values, results copied out."""
