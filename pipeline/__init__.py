"""An object detector's whole life as five notebooks: raw images to an evaluated REST service."""
