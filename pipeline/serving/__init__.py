"""The service: pixels in, boxes out. Needs numpy, OpenCV, BentoML, and ONNX Runtime or OpenVINO; no torch, no mmdet.

**One preprocessing.** Pixels are BGR, 0 to 255, without mean and deviation. An image is resized to `int(x * r +
0.5)` with bilinear interpolation and padded with 114 to the right and below; boxes are scaled back per axis.
Training and validation use mmdet's transforms, serving numpy and OpenCV; a property test holds them bit-equal. Both
decode with `decoding.decode`, so EXIF orientation, grey, alpha and 16 bits are treated alike.

**One process.** `outer_app` stands before BentoML's server and answers the REST API; BentoML's parser, which fetches
URLs and unpickles, never sees a body. `upload` reads bodies within limits, `detection_pool` decodes and runs each image
on one thread, and `endpoints` answers. BentoML packs and starts the service, and answers for health and metrics.

**Same bytes.** The Bento's version is a digest of its content, and its creation time is the commit's.
"""
