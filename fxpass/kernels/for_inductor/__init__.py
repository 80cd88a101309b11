"""No kernels, but forms for which Inductor generates faster code."""
