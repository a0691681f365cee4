"""Tiles: their layout, the inputs of the network for each, and their blending."""
