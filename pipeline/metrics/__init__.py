"""Figures of detections against annotations: COCO's metrics, kinds of errors, calibration, and the effect of chance."""
