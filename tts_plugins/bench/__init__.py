"""Measuring: what a strategy reaches, and what it costs."""
