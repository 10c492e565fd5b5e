"""The form to pack, measured before; the packed service, measured through its REST API; and the Model Quality Report.

The record of training images in the Bento is checked against the model's metadata. The test set is then searched in
it, by bytes and by fingerprint in all eight orientations, every test image against every training image. By default
any exact copy fails the step, while similar images are only reported in dev: drawn or synthetic images may look alike
without being the same. Names of COCO train2017 are names of COCO's form that are not among val2017's 5,000, whose
ids are in `coco_val2017.txt`.
"""
