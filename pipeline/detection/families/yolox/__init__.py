"""YOLOX: configuration, head, assignment and checkpoint names."""
