"""Bundles: schema of the manifest, and finding, opening and checking bundles."""
