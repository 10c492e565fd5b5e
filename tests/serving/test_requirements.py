"""Exact versions from the running environment."""

from importlib import metadata

import pytest

from pipeline.errors import MissingError
from pipeline.serving.requirements import pinned_requirements


def test_a_package_and_all_it_needs():
    pinned = dict(line.split("==") for line in pinned_requirements(["requests"]))
    assert pinned["requests"] == metadata.version("requests")
    assert {"requests", "urllib3", "idna", "certifi"} <= pinned.keys()
    assert "pysocks" not in pinned  # only of an extra


def test_spelling_and_repetition_do_not_matter():
    assert pinned_requirements(["PyYAML", "pyyaml"]) == [f"pyyaml=={metadata.version('pyyaml')}"]


def test_an_extra_is_followed():
    pinned = {line.partition("==")[0] for line in pinned_requirements(["fsspec[http]"])}
    assert "aiohttp" in pinned


def test_a_package_that_is_not_installed():
    with pytest.raises(MissingError, match="no-such-package"):
        pinned_requirements(["no-such-package"])
