"""Steps, runs and artifacts. Knows nothing of images or models."""
