"""What an operator may set: limits, threads, the default threshold and the API key, from environment variables.

`VARIABLES` is the one list of them, for the code and for `docs/service.md`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError, did_you_mean
from pipeline.serving.decoding import MAX_PIXELS
from pipeline.serving.sample_places import check_place

PREFIX = "DETECTOR_"

_ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9.\[\]:-]+")
# Kubernetes sets such variables for a Service named `detector`:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(r"_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$")


@dataclass(frozen=True)
class Variable:
    """An environment variable that is a number; `name` is the field of `Settings` that it sets."""

    name: str
    meaning: str
    lowest: float
    highest: float = math.inf
    default: float | None = None  # None: it depends on the machine or the model, as the meaning says

    @property
    def variable(self) -> str:
        """The name of the environment variable."""
        return PREFIX + self.name.upper()

    def read(self, text: str) -> float:
        """Read a value, or raise a `UsageError`."""
        with suppress(ValueError, OverflowError):
            value = float(text)
            whole = self.highest <= 1 or value == int(value)
            if self.lowest <= value <= self.highest and whole:
                return value
        bounds = f"{self.lowest:,} or more" if math.isinf(self.highest) else f"{self.lowest:,} to {self.highest:,}"
        kind = "a number" if self.highest <= 1 else "a whole number"
        raise UsageError(
            f"{self.variable} is '{text[:40]}'", expected=f"{kind}, {bounds}", remedy="correct or unset it"
        )


VARIABLES = (
    Variable("threads", "CPU threads; all CPUs, or the quota of the container, by default", 1, 1024),
    Variable("batch_size", "images in a run of the model; 1 on a CPU and 8 on a GPU by default", 1, 64),
    Variable("score_threshold", "least score of an answer where a request sets none; the model's by default", 0, 1),
    Variable("max_body_bytes", "length of a request's body", 1024, default=32 * 2**20),
    Variable("max_images", "images in a request", 1, default=32),
    Variable("max_pixels", "pixels of an image, by its header", 1, MAX_PIXELS, MAX_PIXELS),
    Variable("max_waiting", "images of all requests that wait; beyond, the answer is 503", 1, default=1024),
    Variable("memory_bytes", "bytes of the bodies of unfinished requests; beyond, it is 503", 2**20, default=2**28),
    Variable("timeout_seconds", "time for a request, its upload included; beyond, the answer is 504", 1, default=60),
    Variable("max_samples", "samples that are kept; beyond, the oldest go", 1, default=1000),
    Variable("max_sample_bytes", "bytes of the samples that are kept; beyond, the oldest go", 2**20, default=10**9),
    Variable("sample_share", "share of all images that is kept besides, chosen at random; 0 by default", 0, 1, 0),
)
TEXTS = {
    "api_key": "needed by `/predict`, `/draw`, `/info`, `/test_data` and `/test_result`, "
    "as `Authorization: Bearer KEY` or `X-API-Key: KEY`; none by default",
    "cors_origins": "origins whose pages may call the service, separated by commas, `*` for all; none by default",
    "run": "the run that the service comes from, which `/info` tells; `serve` and `containerize` set it",
    "samples": "folder or fsspec URL, such as `s3://bucket/prefix`, for samples of the images; none by default",
}
"""Variables that are not numbers, and their meaning."""


@dataclass(frozen=True)
class Settings:
    """The settings of one service; see `VARIABLES` for the numbers and `TEXTS` for the rest."""

    threads: int
    batch_size: int | None  # None: as the device wants
    score_threshold: float
    max_body_bytes: int
    max_images: int
    max_pixels: int
    max_waiting: int
    memory_bytes: int
    timeout_seconds: int
    max_samples: int
    max_sample_bytes: int
    sample_share: float
    api_key: str = field(default="", repr=False)
    cors_origins: tuple[str, ...] = ()
    run: str = ""
    samples: str = ""  # where they are kept; empty for nowhere

    @property
    def limits(self) -> dict[str, int]:
        """The limits of a request, as `/info` tells them."""
        return {"body_bytes": self.max_body_bytes, "images": self.max_images, "pixels": self.max_pixels}


def read_settings(score_threshold: float, floor: float, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from environment variables, where `score_threshold` is the default of the model.

    Args:
        score_threshold: The model's default.
        floor: The least threshold that the model knows.
        environment: The variables.

    Raises:
        UsageError: A variable has a wrong value, or none of this prefix has such a name.
    """
    known = [each.variable for each in VARIABLES] + [PREFIX + name.upper() for name in TEXTS]
    for name in environment:
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.search(name):
            raise UsageError(
                f"there is no setting {name}", remedy=did_you_mean(name, known, otherwise=f"one of {', '.join(known)}")
            )
    values: dict[str, Any] = {name: environment.get(PREFIX + name.upper(), "") for name in TEXTS}
    for each in VARIABLES:
        text = environment.get(each.variable, "")
        number = each.read(text) if text else each.default
        values[each.name] = number if number is None or each.highest <= 1 else int(number)
    if values["score_threshold"] is None:
        values["score_threshold"] = score_threshold
    elif values["score_threshold"] < floor:
        problem = f"DETECTOR_SCORE_THRESHOLD is {values['score_threshold']:g}"
        raise UsageError(
            problem, expected=f"at least {floor:g}, the model's lowest score", remedy="correct or unset it"
        )
    if values["samples"]:
        check_place(values["samples"])
    values["api_key"] = _key(values["api_key"])
    origins = tuple(origin.strip() for origin in values.pop("cors_origins").split(",") if origin.strip())
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            problem = f"DETECTOR_CORS_ORIGINS has '{origin[:80]}'"
            raise UsageError(problem, expected="origins such as https://shop.example, or *", remedy="correct it")
    return Settings(**{**values, "threads": values["threads"] or available_cpus(), "cors_origins": origins})


def _key(text: str) -> str:
    key = text.strip()  # a file that holds a key ends with a new line
    if not (key.isascii() and key.isprintable()):
        raise UsageError("DETECTOR_API_KEY has characters that a header cannot hold", expected="printable ASCII")
    return key


def available_cpus() -> int:
    """Number of CPUs that this process may use; fewer than the machine's in a container or under `taskset`.

    A quota of the control group, as `docker run --cpus=2` sets it, is rounded up.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(count, _quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")))))


def _quota(groups: Path, own: Path) -> float:
    """CPUs that the control groups allow, by version 2 or 1 of cgroups; infinite without a limit.

    In a container, `groups` is the process's own group. Elsewhere, as in a unit of systemd with `CPUQuota=`, the file
    `own` names the group, whose parents may have limits too.

    Reference: https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files.
    """
    group = Path()
    with suppress(OSError):
        for line in own.read_text("utf-8").splitlines():
            if line.startswith("0::/"):  # of version 2
                group = Path(line[4:])
    quotas = [math.inf]
    for folder in (group, *group.parents):
        for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
            with suppress(OSError, ValueError):
                words = [word for name in names for word in (groups / folder / name).read_text("ascii").split()]
                quota, period = map(float, words)
                if quota > 0 and period > 0:
                    quotas.append(quota / period)
    return min(quotas)
