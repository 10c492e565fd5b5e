"""YOLOX by mmdet: configs, weights, training, export to ONNX."""
