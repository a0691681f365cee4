"""Inference backends. A new one is a module here and an entry in ``protocol`` and ``registry``."""
