"""vitlab."""
