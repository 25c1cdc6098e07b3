"""What the benchmarks over recorded pools share."""
