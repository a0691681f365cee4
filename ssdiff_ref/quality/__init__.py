"""Quality metrics and the filters that they and Wald's protocol use."""
