"""The use of a packed service: start it, send it images, and read its answers, all through its REST API."""
