"""What a CUDA graph needs around it: addresses that stay, values that are carried, results that leave."""
