"""Bundles: the manifest's schema, and opening, finding and hashing what it describes."""
