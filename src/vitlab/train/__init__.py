"""Batches → a run: objective, optimizer, schedule, loop, checkpoints. Receives evaluators as values."""
