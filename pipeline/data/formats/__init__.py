"""Annotation formats, each read into a COCO dataset.

The readers are this project's own. supervision (0.31) and globox (2.9) were tried for each format, and are what the
tests compare with, as writers and as readers. Each lacks what users need: both lose crowds or `difficult` in some
format, name no line in an error, read no split, and find no images in other folders than the annotations name.
supervision decodes every image, makes a mask of the whole image of each polygon, and reads neither CVAT nor CSV; globox
expands XML entities, does not shift VOC's coordinates, and reads no tracks, rotations, circles or masks.
"""
