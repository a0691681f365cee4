"""Parity: step-by-step comparison of a computation with its reference."""
