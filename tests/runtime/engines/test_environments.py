"""Whether a machine of the cluster has the Python and the packages of the user's."""

from __future__ import annotations

import pytest

from pipeline.errors import StepError
from pipeline.runtime.engines.environments import refuse_environment

HERE = {"python": "3.11.7", "platform": "Linux", "device": "CPU, 2 cores", "numpy": "2.3.1", "torch": "2.13.0+cpu"}


@pytest.mark.parametrize(
    "there",
    [
        pytest.param({"platform": "other Linux", "device": "8 GPUs"}, id="another machine"),
        pytest.param({"torch": "2.13.0+cu130"}, id="another build"),
        pytest.param({"python": "3.11.9", "more": "1.0"}, id="another patch of Python, and more packages"),
    ],
)
def test_machines_may_differ(there: dict[str, str]) -> None:
    refuse_environment(HERE, {**HERE, **there}, "b")


@pytest.mark.parametrize(
    ("there", "says"),
    [
        pytest.param({"python": "3.12.1"}, r"python 3\.12\.1 instead of 3\.11\.7", id="Python"),
        pytest.param({"numpy": "2.3.2"}, r"numpy 2\.3\.2 instead of 2\.3\.1", id="version"),
        pytest.param({"torch": "not installed"}, r"torch not installed instead of 2\.13\.0", id="missing"),
    ],
)
def test_another_environment_is_refused(there: dict[str, str], says: str) -> None:
    with pytest.raises(StepError, match=rf"(?s){says}.*where: +b\n.*requirements\.ray\.lock"):
        refuse_environment(HERE, {**HERE, **there}, "b")
