"""What is left to do outside of a rewritten graph, in each call: numbers are computed, results are cut and laid out."""
