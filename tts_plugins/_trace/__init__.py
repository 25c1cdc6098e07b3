"""The record of a solve, and its pictures: terminal, notebook, page, OpenTelemetry."""
