"""Wald's protocol: datasets, and pairs degraded to reduced resolution."""
