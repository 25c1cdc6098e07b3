"""What the benchmarks against a live server share."""
