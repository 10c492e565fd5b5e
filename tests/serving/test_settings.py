"""The settings that an operator makes by environment variables, and the CPUs that a process may use."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import pytest
from cases import cases

from pipeline.errors import UsageError
from pipeline.serving import settings
from pipeline.serving.settings import PREFIX, TEXTS, VARIABLES, available_cpus, read_settings


def test_the_defaults() -> None:
    found = read_settings(0.3, 0.01, {"PATH": "/bin"})
    assert (found.threads, found.batch_size, found.score_threshold) == (available_cpus(), None, 0.3)
    assert found.limits == {"body_bytes": 32 * 2**20, "images": 32, "pixels": 50_000_000}
    assert (found.api_key, found.run) == ("", "")
    assert (found.samples, found.sample_share, found.max_samples, found.max_sample_bytes) == ("", 0, 1000, 10**9)


def test_a_key_from_a_file_ends_with_a_new_line() -> None:
    assert read_settings(0.3, 0.01, {"DETECTOR_API_KEY": "geheim\n"}).api_key == "geheim"


def test_variables_that_kubernetes_sets_for_a_service_of_the_name_are_none_of_ours() -> None:
    names = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR")
    assert read_settings(0.3, 0.01, {f"DETECTOR_{name}": "tcp://10.0.0.1:80" for name in names}).api_key == ""


def test_every_variable_sets_its_field() -> None:
    given = {"DETECTOR_THREADS": "3", "DETECTOR_BATCH_SIZE": "4", "DETECTOR_SCORE_THRESHOLD": "0.5"}
    given |= {f"DETECTOR_MAX_{name}": "2048" for name in ("BODY_BYTES", "IMAGES", "PIXELS", "WAITING")}
    given |= {"DETECTOR_MEMORY_BYTES": "1048576", "DETECTOR_TIMEOUT_SECONDS": "5"}
    given |= {"DETECTOR_API_KEY": "geheim", "DETECTOR_RUN": "2026", "DETECTOR_CORS_ORIGINS": "https://a.b, http://c"}
    given |= {"DETECTOR_SAMPLES": "s3://bucket/samples", "DETECTOR_SAMPLE_SHARE": "0.05"}
    given |= {"DETECTOR_MAX_SAMPLES": "20", "DETECTOR_MAX_SAMPLE_BYTES": "2097152"}
    assert set(given) == {each.variable for each in VARIABLES} | {PREFIX + name.upper() for name in TEXTS}
    found = read_settings(0.3, 0.01, given)
    assert (found.threads, found.batch_size, found.score_threshold, found.timeout_seconds) == (3, 4, 0.5, 5)
    assert (found.max_body_bytes, found.max_images, found.max_pixels, found.max_waiting) == (2048,) * 4
    assert (found.memory_bytes, found.api_key, found.run) == (2**20, "geheim", "2026")
    assert (found.samples, found.sample_share) == ("s3://bucket/samples", 0.05)
    assert (found.max_samples, found.max_sample_bytes) == (20, 2**21)
    assert found.cors_origins == ("https://a.b", "http://c")
    assert "geheim" not in repr(found)


@cases(
    "name, value, message",
    {
        "not a number": ("DETECTOR_THREADS", "two", "DETECTOR_THREADS is 'two'\n.*a whole number, 1 to 1,024"),
        "a fraction": ("DETECTOR_MAX_IMAGES", "1.5", "a whole number"),
        "nothing": ("DETECTOR_TIMEOUT_SECONDS", "0", "1 or more"),
        "not finite": ("DETECTOR_MEMORY_BYTES", "nan", "a whole number"),
        "infinite": ("DETECTOR_MEMORY_BYTES", "inf", "a whole number"),
        "above 1": ("DETECTOR_SCORE_THRESHOLD", "30", "a number, 0 to 1"),
        "below the model's": ("DETECTOR_SCORE_THRESHOLD", "0.001", "at least 0.01, the model's lowest score"),
        "more than can be decoded": ("DETECTOR_MAX_PIXELS", "99000000", "1 to 50,000,000"),
        "a relative folder": ("DETECTOR_SAMPLES", "samples", "not absolute\n.*samples\n.*an absolute path"),
        "credentials in a URL": ("DETECTOR_SAMPLES", "s3://a:b@c/d", "the s3 URL of the samples holds credentials"),
        "too many threads": ("DETECTOR_THREADS", "999999999", "1 to 1,024"),
        "no origin": ("DETECTOR_CORS_ORIGINS", "https://a.example/ nonsense", "origins such as https://shop.example"),
        "a key that no header holds": ("DETECTOR_API_KEY", "schlüssel", "printable ASCII"),
        "misspelt": ("DETECTOR_THREAD", "2", "no setting DETECTOR_THREAD\n.*did you mean 'DETECTOR_THREADS'"),
    },
)
def test_a_wrong_value_is_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings(0.3, 0.01, {name: value})
    assert re.search(message, str(caught.value))


def test_the_documentation_has_every_variable() -> None:
    page = (Path(__file__).parents[2] / "docs" / "service.md").read_text()
    for each in VARIABLES:
        assert re.search(rf"\| `{each.variable}` \| {re.escape(each.meaning)} \|", page), each.variable
        if each.default:
            assert f"{each.default:,}" in page
    for name, meaning in TEXTS.items():
        assert f"| `{PREFIX}{name.upper()}` | {meaning} |" in page


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_cpus_are_those_this_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


@cases(
    "files, cpus",
    {
        "two of many": ({"cpu.max": "200000 100000"}, 2.0),
        "a part": ({"cpu.max": "150000 100000"}, 1.5),
        "no limit": ({"cpu.max": "max 100000"}, math.inf),
        "version 1": ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3.0),
        "version 1 without a limit": ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        "a group of its own": ({"own": "0::/a.slice/b.service", "a.slice/b.service/cpu.max": "100000 100000"}, 1.0),
        "a group above": ({"own": "0::/a.slice/b.service", "a.slice/cpu.max": "300000 100000"}, 3.0),
        "no control groups": ({}, math.inf),
    },
)
def test_the_quota_of_a_container_counts(tmp_path: Path, files: dict[str, str], cpus: float) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert settings._quota(tmp_path, tmp_path / "own") == cpus


def test_threads_are_those_of_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_quota", lambda *_: 0.5)
    assert settings.available_cpus() == 1
