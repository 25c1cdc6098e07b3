"""Calls of language models: what a candidate changes in them, what they cost, and where all of them pass."""
