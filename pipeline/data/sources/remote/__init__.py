"""Files and folders behind any URL as local paths: fetched, continued, verified."""
