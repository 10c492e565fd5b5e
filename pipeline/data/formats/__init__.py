"""Annotation formats, each read into a COCO data set.

The readers are this project's own. supervision (0.31) and globox (2.9) were tried for each format, and are what the
tests compare with, as writers and as readers; what users need is lacking from each:

========  ================================================  ===========================================================
format    supervision                                       globox
========  ================================================  ===========================================================
coco      refuses a negative side, which validation is to   the same, by an `assert`; loses crowds
          drop; no merging, no subsets
voc       decodes every image, and stops at a broken one;   coordinates counted from 1 are not shifted: every box is a
          loses `difficult`; shifts the decimal edges       pixel too wide to the left and top; entities are expanded;
          that globox, CVAT and others write                an `assert` for a swapped corner; loses `difficult`
yolo      one flat folder; each polygon becomes a mask of   sizes of the stored picture, not the upright one; one
          the whole image (24 in 12 megapixels: 288 MB);    suffix for all images; a polygon is a syntax error; the
          refuses a negative side                           file of an error, not its line
labelme   shapes of one `group_id` become one box; no       rectangles only, or polygons; `imagePath` as it is, with
          circles, no masks; names no file in an error      backslashes; one corner gives a box of no area
cvat      none                                              boxes only, rotation not applied; no tracks, no subsets
csv       none                                              `ImageID` must have the file's suffix; loses `IsGroupOf`;
                                                            no names for machine ids; no table of pixels; no line
========  ================================================  ===========================================================

None of both gives the split that comes with the data, or finds images whose folders are not those of the annotations.
"""
