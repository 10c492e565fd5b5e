"""Figures of a data set, made to be read at a notebook's width.

Figures do without pyplot and its global state; a `Chart` as the last expression of a cell shows itself.
"""

from pipeline.data.report.box_figures import aspect_ratios, box_sizes, heat_map
from pipeline.data.report.class_samples import class_samples
from pipeline.data.report.cooccurrence import co_occurrence
from pipeline.data.report.count_figures import boxes_per_image, class_histogram
from pipeline.data.report.finding_samples import worst_examples
from pipeline.data.report.sample_grid import sample_grid
from pipeline.data.report.size_figures import image_sizes

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
