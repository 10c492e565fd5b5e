"""Content-addressed artifacts on local disk or behind any fsspec URL."""
