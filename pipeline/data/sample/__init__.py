"""The embedded sample dataset, drawn on this machine."""
