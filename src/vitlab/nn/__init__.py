"""Tensor → tensor: the parts that models are built from. Knows no file."""
