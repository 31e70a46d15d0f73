"""Whole models and the catalog of their names."""
