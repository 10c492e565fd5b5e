"""Detector families, one folder each. `FAMILY` is the family that is trained, exported and packed."""

from __future__ import annotations

from pipeline.detection.families.yolox import YOLOX

FAMILY = YOLOX
