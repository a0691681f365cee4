"""Reports of results: one page each, with images, maps of quality and provenance."""
