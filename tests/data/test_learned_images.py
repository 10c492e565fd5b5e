from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pictures import smooth

from pipeline.data.learned_images import FILE_NAME, LearnedImages, UnknownWeights, find_seen, learn_images
from pipeline.errors import DataError, MissingError
from pipeline.serving.image_fingerprint import FINGERPRINT_BYTES

COCO = UnknownWeights("ab" * 32, coco=True)
OTHER = UnknownWeights("01" * 32, coco=False)


def jpeg(pixels: Any, quality: Any = 90) -> Any:
    return cv2.imencode(".jpg", np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def write_set(folder: Any, files: Any) -> Any:
    """A data set of files by name, without boxes."""
    (folder / "images").mkdir(parents=True)
    for name, content in files.items():
        (folder / "images" / name).write_bytes(content)
    records = [{"id": i, "file_name": name, "width": 9, "height": 9} for i, name in enumerate(files, 1)]
    content = {"images": records, "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def pictures(real_data: Path) -> list[bytes]:
    """Files of 40 different photographs."""
    with zipfile.ZipFile(real_data / "val2017.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[:40]
        return [archive.read(name) for name in names]


def test_what_was_learned_is_found_in_a_test_set_and_nothing_else(tmp_path: Path, pictures: Any) -> None:
    """The first 20 pictures are learned; a test set has the others, one of the first, and a changed copy."""
    train = write_set(tmp_path / "train", {f"{i}.jpg": each for i, each in enumerate(pictures[:12])})
    evaluated = write_set(tmp_path / "eval", {f"{i}.jpg": each for i, each in enumerate(pictures[12:20])})
    learned = learn_images(train, evaluated)
    assert len(learned) == 20
    pixels = cv2.imdecode(np.frombuffer(pictures[15], np.uint8), cv2.IMREAD_COLOR)
    fresh = {f"fresh {i}.jpg": each for i, each in enumerate(pictures[20:])}
    seen = {"the very file.jpg": pictures[3], "flipped.jpg": jpeg(pixels[:, ::-1], 70)}
    test = write_set(tmp_path / "test", seen | fresh)
    assert find_seen(learned, test) == {"the very file.jpg": "exact", "flipped.jpg": "similar"}


def test_flat_picture_is_found_by_its_bytes_alone(tmp_path: Path) -> None:
    flat = np.full((90, 120, 3), 128, np.uint8)
    learned = learn_images(write_set(tmp_path / "train", {"a.jpg": jpeg(flat), "b.jpg": jpeg(smooth(1, (160, 120)))}))
    test = write_set(tmp_path / "test", {"same.jpg": jpeg(flat), "re-encoded.jpg": jpeg(flat, 50)})
    assert find_seen(learned, test) == {"same.jpg": "exact"}
    assert [bool(each.any()) for each in learned.fingerprints].count(False) == 1


def test_nothing_learned_is_found_nowhere_and_absent_files_are_errors(tmp_path: Path) -> None:
    test = write_set(tmp_path / "test", {"a.jpg": jpeg(smooth(1, (160, 120)))})
    assert find_seen(learn_images(), test) == {}
    assert find_seen(learn_images(test), write_set(tmp_path / "empty", {})) == {}
    with pytest.raises(MissingError, match="no record of learned images"):
        LearnedImages.read(tmp_path / FILE_NAME)
    (test / "images" / "a.jpg").unlink()
    with pytest.raises(MissingError, match="the file is missing"):
        learn_images(test)


def test_each_image_is_recorded_once_with_what_was_learned_before(tmp_path: Path) -> None:
    one = write_set(tmp_path / "one", {"a.jpg": jpeg(smooth(1, (160, 120))), "b.jpg": jpeg(smooth(2, (160, 120)))})
    two = write_set(tmp_path / "two", {"c.jpg": jpeg(smooth(2, (160, 120))), "d.jpg": jpeg(smooth(3, (160, 120)))})
    before = learn_images(one)
    before = LearnedImages(before.sha256, before.fingerprints, (COCO, OTHER, COCO))
    learned = learn_images(two, before=before)
    expected = sorted(hashlib.sha256(jpeg(smooth(seed, (160, 120)))).hexdigest() for seed in (1, 2, 3))
    assert [row.tobytes().hex() for row in learned.sha256] == expected
    assert learned.unknown_weights == (OTHER, COCO)
    assert len(find_seen(learned, one)) == 2
    in_turn, apart = learn_images(one, two), learn_images(two, one)
    assert in_turn.write(tmp_path / "1").read_bytes() == apart.write(tmp_path / "2").read_bytes()
    assert np.array_equal(in_turn.fingerprints, learned.fingerprints)


digests = st.integers(0, 20).flatmap(lambda n: arrays.arrays(np.uint8, (n, 32)))
weights = st.lists(st.builds(UnknownWeights, st.binary(min_size=32, max_size=32).map(bytes.hex), st.booleans()))


@settings(max_examples=30, deadline=None)
@given(digests, weights)
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, sha256: Any, unknown: Any) -> None:
    path = tmp_path_factory.mktemp("learned") / FILE_NAME
    prints = np.arange(len(sha256) * FINGERPRINT_BYTES, dtype=np.uint8).reshape(-1, FINGERPRINT_BYTES)
    learned = LearnedImages(sha256, prints, tuple(unknown))
    read = LearnedImages.read(learned.write(path))
    assert np.array_equal(read.sha256, sha256)
    assert np.array_equal(read.fingerprints, prints)
    assert read.unknown_weights == tuple(unknown)
    assert path.read_bytes() == read.write(path.with_name("again")).read_bytes()
    assert read.summary() == {
        "images": len(sha256),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "unknown_weights": [{"sha256": each.sha256, "coco": each.coco} for each in unknown],
    }


def record(count: Any = 3) -> Any:
    prints = np.ones((count, FINGERPRINT_BYTES), np.uint8)
    return LearnedImages(np.arange(count * 32, dtype=np.uint8).reshape(-1, 32), prints, (COCO,))


def saved(**changes: Any) -> Any:
    def write(path: Any) -> None:
        kept = {name: value for name, value in {**record().to_arrays(), **changes}.items() if value is not None}
        with path.open("wb") as file:
            np.savez(file, **kept)

    return write


def damaged(path: Any) -> None:
    data = bytearray(record().write(path).read_bytes())
    data[data.index(record().sha256.tobytes()) + 40] ^= 1
    path.write_bytes(data)


FAULTS = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("nothing of the kind"),
    "cut off": lambda path: path.write_bytes(record().write(path).read_bytes()[:500]),
    "a flipped bit": damaged,
    "no fingerprints": saved(looks=None),
    "a fingerprint too few": saved(looks=np.ones((2, FINGERPRINT_BYTES), np.uint8)),
    "short digests": saved(sha256=np.ones((3, 16), np.uint8)),
    "other type": saved(sha256=np.ones((3, 32), np.float32)),
    "a flag too many": saved(unknown_coco=np.ones(2, np.bool_)),
    "short digest of weights": saved(unknown_sha256=np.ones((1, 16), np.uint8)),
    "objects": saved(looks=np.array([{}, {}, {}], object)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_file_that_is_no_such_record(tmp_path: Path, fault: Any) -> None:
    FAULTS[fault](tmp_path / FILE_NAME)
    with pytest.raises(DataError, match="record") as caught:
        LearnedImages.read(tmp_path / FILE_NAME)
    assert str(tmp_path / FILE_NAME) in str(caught.value)
