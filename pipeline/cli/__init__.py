"""Command lines: `step.dev.py`, `step.prod.py` and `python -m pipeline`."""
