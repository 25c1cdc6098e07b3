"""Checks of a reply's form by a local program: JSON by its schema, a text by a pattern, tool calls by their tools."""
