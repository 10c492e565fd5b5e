"""From outside sources to clean COCO data sets: load, validate, convert, split, look."""
