"""Placeholder docstring: replace."""
