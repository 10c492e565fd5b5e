"""Images and boxes written for other tools: one module a format."""
