"""The rows of `benchmarks.server`."""
