"""Annotation formats, each read into a COCO dataset.

The readers are this project's own. supervision (0.31) and globox (2.9) were tried for each format and are what the
tests compare with, as writers and as readers. Each lacks what users need:

========  ================================================  ===========================================================
format    supervision                                       globox
========  ================================================  ===========================================================
coco      refuses a negative side, which validation drops;  the same, by an `assert`; loses crowds
          no merging, no subsets
voc       decodes every image, and stops at a broken one;   does not shift coordinates counted from 1: every box is a
          loses `difficult`; shifts the decimal edges       pixel too wide to the left and top; expands entities; an
          that globox, CVAT and others write                `assert` for a swapped corner; loses `difficult`
yolo      one flat folder; each polygon becomes a mask of   sizes of the stored image, not the upright one; one suffix
          the whole image (24 in 12 megapixels: 288 MB);    for all images; a polygon is a syntax error; an error names
          refuses a negative side                           the file, but no line
labelme   shapes of one `group_id` become one box; no       rectangles only, or polygons; `imagePath` as written, with
          circles, no masks; an error names no file         backslashes; one corner gives a box without area
cvat      none                                              boxes only, rotation not applied; no tracks, no subsets
csv       none                                              `ImageID` must have the file's suffix; loses `IsGroupOf`;
                                                            no names for machine ids; no table of pixels; no line
========  ================================================  ===========================================================

Neither reads the split that comes with the data, or finds images in other folders than the annotations name.
"""
