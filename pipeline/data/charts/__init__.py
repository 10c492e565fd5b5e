"""Figures of a data set, made to be read at a notebook's width.

Figures do without pyplot and its global state; a `Chart` as the last expression of a cell shows itself.
"""

from pipeline.data.charts.boxes import aspect_ratios, box_sizes, heat_map
from pipeline.data.charts.counts import boxes_per_image, class_histogram
from pipeline.data.charts.grid import sample_grid
from pipeline.data.charts.images import image_sizes
from pipeline.data.charts.matrix import co_occurrence
from pipeline.data.charts.samples import class_samples
from pipeline.data.charts.worst import worst_examples

__all__ = [
    "aspect_ratios",
    "box_sizes",
    "boxes_per_image",
    "class_histogram",
    "class_samples",
    "co_occurrence",
    "heat_map",
    "image_sizes",
    "sample_grid",
    "worst_examples",
]
