"""Annotation formats, each read into a COCO data set."""
