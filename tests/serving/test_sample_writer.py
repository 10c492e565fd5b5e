"""Samples in a place: within the limits, whoever writes, and without a request noticing."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cases import cases
from kept_samples import sample_of

from pipeline.errors import UsageError
from pipeline.serving import sample_writer
from pipeline.serving.sample_places import LocalFolder, check_place, open_place
from pipeline.serving.sample_writer import SampleWriter

MEBI = 2**20


def images(count: int, first: int = 0, size: int = 1000) -> list[bytes]:
    return [number.to_bytes(4, "big") * (size // 4) for number in range(first, first + count)]


def offer(writer: SampleWriter, image: bytes) -> bool:
    return writer.offer(lambda name: sample_of(image), image, ".png")


def write(place: Any, files: list[bytes], most: int = 100, most_bytes: int = MEBI) -> Counter[str]:
    counts: Counter[str] = Counter()

    def count(outcome: str) -> None:
        counts[outcome] += 1

    for image in files:  # each alone, so that none is dropped
        writer = SampleWriter(place, most, most_bytes, count)
        offer(writer, image)
        writer.close()
    return counts


def kept(folder: Path) -> set[str]:
    pairs = Counter(path.stem for path in folder.glob("[!.]*"))
    assert set(pairs.values()) <= {2}, "an image without its JSON file, or the other way round"
    return set(pairs)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("[!.]*"))


def test_an_image_and_its_json_are_kept_once(tmp_path: Path) -> None:
    place = open_place(str(tmp_path / "samples"), create=True)
    assert write(place, images(1) * 3) == {"kept": 1, "known": 2}
    (digest,) = kept(tmp_path / "samples")
    assert (tmp_path / "samples" / f"{digest}.png").read_bytes() == images(1)[0]
    record = json.loads((tmp_path / "samples" / f"{digest}.json").read_bytes())
    assert (record["image"], record["reasons"], record["file_bytes"]) == (f"{digest}.png", ["uncertain"], 1000)
    assert (tmp_path / "samples").stat().st_mode & 0o777 == 0o700


def test_the_oldest_go_where_there_are_too_many_also_after_a_restart(tmp_path: Path) -> None:
    place = open_place(str(tmp_path), create=True)
    newest = {sample_of(image).sha256 for image in images(5, first=3)}
    assert write(place, images(8), most=5)["kept"] == 8
    assert kept(tmp_path) == newest
    again = LocalFolder(tmp_path, create=True)
    write(again, images(1, first=99), most=3)
    assert len(kept(tmp_path)) == 3
    assert sample_of(images(1, first=99)[0]).sha256 in kept(tmp_path)


def test_their_bytes_stay_within_the_limit(tmp_path: Path) -> None:
    place = open_place(str(tmp_path), create=True)
    assert write(place, images(20), most_bytes=10_000)["kept"] == 20
    assert 5_000 < size(tmp_path) <= 10_000
    before = kept(tmp_path)
    assert write(place, images(1, first=50, size=20_000), most_bytes=10_000) == {"dropped": 1}
    assert kept(tmp_path) == before


def test_what_a_kill_left_is_replaced_or_removed(tmp_path: Path) -> None:
    whole, half, *_ = images(2)
    (tmp_path / sample_of(half).image).write_bytes(half)  # before its JSON file
    draft = tmp_path / f".{sample_of(whole).image}.0a1b2c3d.tmp"
    draft.write_bytes(b"half")
    place = open_place(str(tmp_path), create=True)
    assert not draft.exists()
    assert write(place, [whole, half], most=5) == {"kept": 2}
    assert len(kept(tmp_path)) == 2


def _write_many(folder: Path, first: int) -> None:
    write(LocalFolder(folder, create=True), images(40, first), most=10)


def test_two_processes_keep_to_the_limits_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write_many, args=(tmp_path, first)) for first in (0, 100)]
    for each in processes:
        each.start()
    most = 0
    while any(each.is_alive() for each in processes):
        most = max(most, len({path.stem for path in tmp_path.glob("[!.]*.json")}))
    for each in processes:
        each.join()
    assert [each.exitcode for each in processes] == [0, 0]
    assert most <= 10
    assert len(kept(tmp_path)) == 10


class SlowPlace(LocalFolder):
    """A folder that waits before it writes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, create=True)
        self.gate = threading.Event()

    def write(self, name: str, content: bytes) -> None:
        self.gate.wait(10)
        super().write(name, content)


@cases("size, fits", {"by their number": (1000, sample_writer.WAITING_SAMPLES), "by their bytes": (20 * MEBI, 3)})
def test_a_full_queue_drops_and_counts(tmp_path: Path, size: int, fits: int) -> None:
    counts: Counter[str] = Counter()
    place = SlowPlace(tmp_path)
    writer = SampleWriter(place, 1000, 2**30, lambda outcome: counts.update([outcome]))
    taken = sum(offer(writer, image) for image in images(50, size=size))
    assert fits <= taken <= fits + 1  # the first may be under way
    assert counts == {"dropped": 50 - taken}
    place.gate.set()
    writer.close()
    assert counts == {"dropped": 50 - taken, "kept": taken}


def test_a_place_that_fails_is_told_of_once_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = LocalFolder(tmp_path / "a", create=True)
    counts: Counter[str] = Counter()
    writer = SampleWriter(place, 10, MEBI, lambda outcome: counts.update([outcome]))
    (tmp_path / "a").rename(tmp_path / "b")
    first, second, third = images(3)
    offer(writer, first)
    offer(writer, second)
    while sum(counts.values()) < 2:
        time.sleep(0.01)
    (tmp_path / "b").rename(tmp_path / "a")
    offer(writer, third)
    writer.close()
    assert counts == {"failed": 2, "kept": 1}
    assert caplog.text.count("samples are not kept at") == 1


@cases(
    "text, says",
    {
        "a relative path": ("samples", "the folder of the samples is not absolute"),
        "a password": ("s3://key:secret@bucket/a", "holds credentials"),
        "a password with a slash": ("s3://key:sec/ret@bucket/a", "holds credentials"),
        "a signature": ("abfs://samples/a?sig=abc", "holds credentials or a query"),
        "no file system": ("https://example.org/a", "cannot be kept at a URL of kind 'https'"),
        "a chain": ("simplecache::s3://bucket/a", "is not absolute"),
    },
)
def test_a_wrong_place_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_place(text)
    assert says in str(caught.value)
    assert "sec" not in str(caught.value).replace("AWS_SECRET_ACCESS_KEY", "")


@cases(
    "text, says",
    {
        "an unknown kind": ("nothing://a/b", "Protocol not known"),
        "a missing package": ("gs://bucket/a", "gcsfs"),
        "a file": ("{file}", "samples cannot be kept in this folder"),
        "below a file": ("{file}/a", "samples cannot be kept in this folder"),
    },
)
def test_a_place_that_cannot_be_used_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError) as caught:
        open_place(text.format(file=tmp_path / "file"), create=True)
    assert says in str(caught.value)


def test_a_url_of_local_files_is_a_folder(tmp_path: Path) -> None:
    place = open_place(f"file://{tmp_path}/samples", create=True)
    assert (type(place), place.url) == (LocalFolder, str(tmp_path / "samples"))


def test_on_s3_too(s3: str) -> None:
    place = open_place(f"{s3}/samples/production")
    assert place.files() == []
    assert write(place, [*images(6), images(6)[5]], most=3) == {"kept": 6, "known": 1}
    files = open_place(f"{s3}/samples/production").files()
    assert len({file.name[:64] for file in files}) == 3
    assert len(files) == 6
    image = sample_of(images(6)[5]).image
    assert place.read(image) == images(6)[5]
