"""Backends: what runs the network. A new one is a file here and a row in ``registry``."""
