"""A real OpenAI-compatible server on a loopback port, that counts, keeps time and fails to order."""
