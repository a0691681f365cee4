"""Evaluation of bundles, classical methods and fused rasters."""
