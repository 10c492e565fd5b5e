"""Command lines: `step.dev.py`, `step.prod.py` and `python -m pipeline`."""

ACTIVATE = "activate the virtual environment (source .venv/bin/activate), or run .venv/bin/python"
