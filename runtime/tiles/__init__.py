"""Tiles: where they lie, what the network gets for each, and how they are blended."""
