"""Parity: whether a computation gives the same as another one, step by step."""
