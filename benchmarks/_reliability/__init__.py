"""Rows of `python -m benchmarks.reliability`."""
