"""Training images in a test set, found through the record that is packed with a model."""

import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.data.learned_images import FILE_NAME, LearnedImages, SeenImage, UnknownWeights, learn_images
from pipeline.errors import DataError, IntegrityError, MissingError
from pipeline.evaluation.exposure import check_exposure
from pipeline.evaluation.metrics import evaluate
from pipeline.serving.model_metadata import ModelMetadata

COCO, OTHER = UnknownWeights("c" * 64, True), UnknownWeights("0" * 64, False)
METADATA = ModelMetadata("nano", (64, 64), ("blob",), 0.01, 0.65, 0.3, "0" * 64)
FOUND = {"category_id": 1, "bbox": [8, 8, 32, 32], "score": 0.9}


def picture(seed: int) -> np.ndarray:
    """A soft pattern, as a photograph is; no two seeds look alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)


def write_set(folder: Path, files: dict[str, bytes]) -> Path:
    """A data set with one object in each image."""
    document = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "blob"}]}
    for number, (name, content) in enumerate(files.items(), 1):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        document["images"].append({"id": number, "file_name": name, "width": 160, "height": 120})
        box = {"bbox": [8, 8, 32, 32], "area": 1024, "iscrowd": 0}
        document["annotations"].append({"id": number, "image_id": number, "category_id": 1, **box})
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def jpeg(image: np.ndarray, quality: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


@pytest.fixture
def training_set(tmp_path: Path) -> Path:
    return write_set(tmp_path / "train", {f"{seed}.png": png(picture(seed)) for seed in range(6)})


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    """A training image, a near duplicate of one, a re-encoded flip of one, and two others; two have COCO's names."""
    brighter = np.clip(picture(1).astype(int) + 6, 0, 255).astype(np.uint8)
    return write_set(
        tmp_path / "test",
        {
            "copy.png": png(picture(0)),
            "000000000009.jpg": jpeg(picture(20), 90),
            "brighter.png": png(brighter),
            "000000000139.jpg": jpeg(picture(21), 90),
            "flip.jpg": jpeg(cv2.flip(picture(2), 1), 70),
        },
    )


@pytest.fixture
def packed(tmp_path: Path):
    """What evaluation reads of a Bento: the model metadata, and the record at the root."""

    def write(learned: LearnedImages | None) -> Path:
        bento = tmp_path / "bento"
        (bento / "src").mkdir(parents=True)
        training = {"epochs": 3}
        if learned is not None:
            learned.write(bento / FILE_NAME)
            training["learned_images"] = learned.summary()
        ModelMetadata.from_dict(METADATA.to_dict() | {"training": training}).write(bento / "src" / "model.json")
        return bento

    return write


def results(*image_ids: int) -> list[dict]:
    return [{"image_id": number, **FOUND} for number in image_ids]


def test_training_images_are_found_out(training_set, test_set, packed) -> None:
    exposure = check_exposure(test_set, packed(learn_images(training_set)), results(1, 2, 3, 5))
    assert exposure.seen == (
        SeenImage("copy.png", "exact"), SeenImage("brighter.png", "similar"), SeenImage("flip.jpg", "similar"),
    )  # fmt: skip
    assert (exposure.images, exposure.learned, exposure.exact, exposure.similar) == (5, 6, 1, 2)
    assert (exposure.exact_share, exposure.similar_share, exposure.unseen_images) == (0.2, 0.4, 2)
    assert [one.image.file_name for one in exposure.pictures] == ["copy.png", "brighter.png", "flip.jpg"]
    for one in exposure.pictures:
        assert cv2.imdecode(np.frombuffer(one.jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (120, 160, 3)
    assert exposure.coco_names == ()  # this model never met COCO


def test_the_figures_without_them_are_those_of_a_test_set_without_them(
    training_set, test_set, packed, tmp_path
) -> None:
    exposure = check_exposure(test_set, packed(learn_images(training_set)), results(1, 2, 3, 5))
    left = {name: (test_set / "images" / name).read_bytes() for name in ("000000000009.jpg", "000000000139.jpg")}
    expected = evaluate(write_set(tmp_path / "left", left), results(1))
    assert exposure.unseen is not None
    assert exposure.unseen.summary() == expected.summary()
    assert exposure.unseen.map50 == pytest.approx(51 / 101)


def test_pictures_are_few_and_the_exact_ones_first(packed, tmp_path) -> None:
    flipped = {f"flip{seed}.png": png(cv2.flip(picture(seed), 1)) for seed in range(10)}
    same = {f"same{seed}.png": png(picture(seed)) for seed in range(10)}
    learned = learn_images(write_set(tmp_path / "train", same))
    exposure = check_exposure(write_set(tmp_path / "test", flipped | same), packed(learned), [])
    assert (exposure.exact, exposure.similar) == (10, 10)
    assert [one.image.kind for one in exposure.pictures] == ["exact"] * 10 + ["similar"] * 2
    assert exposure.unseen is None  # nothing is left


def test_a_clean_test_set(test_set, packed, tmp_path) -> None:
    learned = learn_images(write_set(tmp_path / "train", {"40.png": png(picture(40))}))
    exposure = check_exposure(test_set, packed(learned), results(1))
    assert (exposure.seen, exposure.unseen, exposure.pictures) == ((), None, ())
    assert (exposure.exact_share, exposure.similar_share) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("weights", "names", "knows_coco"),
    [
        pytest.param((COCO,), ("000000000009.jpg",), True, id="weights for COCO"),
        pytest.param((OTHER, COCO), ("000000000009.jpg",), True, id="among others"),
        pytest.param((OTHER,), ("000000000009.jpg",), False, id="other weights, which may descend from COCO's"),
        pytest.param((), (), False, id="none"),
    ],
)
def test_weights_from_elsewhere(training_set, test_set, packed, weights, names, knows_coco) -> None:
    known = learn_images(training_set)
    exposure = check_exposure(test_set, packed(LearnedImages(known.sha256, known.fingerprints, weights)), results(1))
    assert exposure.unknown_weights == weights
    assert (exposure.coco_names, exposure.knows_coco) == (names, knows_coco)
    assert exposure.exact == 1  # what is known is checked all the same


def test_a_model_that_was_packed_before_is_unknown(test_set, packed) -> None:
    exposure = check_exposure(test_set, packed(None), results(1))
    assert (exposure.learned, exposure.seen, exposure.unseen) == (None, (), None)
    assert (exposure.exact_share, exposure.similar_share, exposure.unseen_images) == (None, None, None)
    assert exposure.coco_names == ("000000000009.jpg",)  # it may descend from COCO's weights


def test_the_bento_that_is_served_can_be_examined(bento, write_dataset) -> None:
    """A real one, packed without a record."""
    assert check_exposure(write_dataset([250, 60]), bento, []).learned is None


def remove(bento: Path) -> None:
    (bento / FILE_NAME).unlink()


def replace(bento: Path) -> None:
    empty = LearnedImages(np.zeros((0, 32), np.uint8), LearnedImages.read(bento / FILE_NAME).fingerprints[:0])
    empty.write(bento / FILE_NAME)


def forget(bento: Path) -> None:
    METADATA.write(bento / "src" / "model.json")


def damage(bento: Path) -> None:
    """The record, and with it the digest in the metadata."""
    (bento / FILE_NAME).write_bytes(b"no record")
    training = {"learned_images": {"sha256": hashlib.sha256(b"no record").hexdigest()}}
    ModelMetadata.from_dict(METADATA.to_dict() | {"training": training}).write(bento / "src" / "model.json")


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        pytest.param(remove, IntegrityError, "is missing", id="removed"),
        pytest.param(replace, IntegrityError, "not the one it was packed with", id="replaced"),
        pytest.param(forget, IntegrityError, "the model metadata names none", id="one that the metadata does not name"),
        pytest.param(damage, DataError, "cannot be read", id="damaged"),
        pytest.param(lambda bento: shutil.rmtree(bento / "src"), MissingError, "model metadata", id="no metadata"),
    ],
)
def test_a_record_that_is_not_the_models_is_refused(training_set, test_set, packed, spoil, error, message) -> None:
    bento = packed(learn_images(training_set))
    spoil(bento)
    with pytest.raises(error, match=message):
        check_exposure(test_set, bento, [])
