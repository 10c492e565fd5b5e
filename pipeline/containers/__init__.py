"""A packed service as a container image: what an engine needs to build it, and files to run it with.

The Dockerfile is this package's own. The one that `bentoml containerize` generates first installs a compiler, git and
gnupg, which a service of wheels never calls, and has neither a health check nor labels, and its user may write to the
service's files.
"""
