"""Files ↔ parameters: the only door for checkpoints."""
