"""Wald's protocol: pairs at reduced resolution, and the datasets that they come from."""
