"""Checks and generators for the repository itself."""
