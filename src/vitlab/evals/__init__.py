"""A model → numbers."""
