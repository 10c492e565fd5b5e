"""Looking at runs, and keeping what they left in order: `python -m pipeline`."""
