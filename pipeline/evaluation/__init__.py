"""From a packed service and a test set to metrics, figures and the Model Quality Report."""
