"""Quality indexes, and the filters that define them."""
