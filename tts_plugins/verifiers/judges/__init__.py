"""Verifiers that ask a language model, and what keeps candidates from fooling it."""
