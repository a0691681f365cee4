"""Training of SSDiff on simulated pairs, fine-tuning, and adaptation to a scene."""
