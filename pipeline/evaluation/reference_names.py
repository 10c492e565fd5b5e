"""The names of the models that the packed one is compared with; see `references`, which takes long to import."""

GIVEN, EARLIER, PYTORCH = "given", "earlier", "pytorch"
TITLES = {GIVEN: "given weights", EARLIER: "earlier model", PYTORCH: "weights in PyTorch"}
