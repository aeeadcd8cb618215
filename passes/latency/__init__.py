"""What profile is made of: clusters, kernels, sampling, calibration in context."""
