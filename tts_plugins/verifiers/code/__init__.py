"""Verifiers that run a candidate's program."""
