"""A run → answers."""
