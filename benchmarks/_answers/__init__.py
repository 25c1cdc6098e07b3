"""What `python -m benchmarks.answers` measures."""
