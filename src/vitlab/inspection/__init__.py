"""A model → arrays → figures. Arrays first: every figure draws arrays that a function here returns."""
