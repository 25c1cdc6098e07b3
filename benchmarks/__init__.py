"""Measurements of what this package promises: each module is one command that prints one table."""
