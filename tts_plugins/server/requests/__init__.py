"""Requests of the OpenAI protocol: how they are read, solved, and answered."""
