"""Providers with an interface of their own, by any-llm."""
