"""Process verifiers: a score for every step."""
