"""The service: pixels in, boxes out. Needs numpy, OpenCV, BentoML, and ONNX Runtime or OpenVINO; no torch, no mmdet.

**One preprocessing.** Pixels are BGR, 0 to 255, without mean and deviation. An image is resized to `int(x * r +
0.5)` with bilinear interpolation and padded with 114 to the right and below; boxes are scaled back per axis.
Training and validation use mmdet's transforms, serving numpy and OpenCV; a property test holds them bit-equal. Both
decode with `decoding.decode`, so EXIF orientation, grey, alpha and 16 bits are treated alike.

**One process.** An ASGI middleware reads each request body itself, within limits, so BentoML's parser, which
fetches URLs and unpickles, never sees one. It decodes and letterboxes in threads, and passes prepared images to a
batchable method.

**Same bytes.** The Bento's version is a digest of its content, and its creation time is fixed.
"""
