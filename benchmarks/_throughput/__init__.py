"""What the benchmark of many solves at once measures."""
