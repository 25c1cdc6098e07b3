"""The parts of `benchmarks.edge`."""
