"""Clients of an OpenAI-compatible server that are of our own making, and what they tell of themselves."""
