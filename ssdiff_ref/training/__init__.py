"""Training: imagery to simulated pairs, pairs to weights, weights to better weights for a scene."""
