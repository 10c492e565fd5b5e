"""Images and boxes written for other tools: one module a format."""

FORMATS = ("cvat", "label-studio", "coco", "yolo")
