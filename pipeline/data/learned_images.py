"""Which images a model learned from: a digest and a fingerprint of each, and a search for them in a test set.

The record takes 320 bytes an image, 32 MB for 100,000, in four places: `learned_images.npz` beside the weights,
`best.pth`, `last.pth` and the Bento. Making it decodes every train and eval image once more, before training starts: 2
to 3 seconds of one processor for 1,000 photographs of COCO, see `benchmarks/bench_learned.py`.

A flat image has no fingerprint, and is found by its bytes only.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.data.coco import read_coco
from pipeline.data.fingerprints import find_similar
from pipeline.data.images import ImageFacts, inspect
from pipeline.errors import DataError, MissingError
from pipeline.serving.image_fingerprint import FINGERPRINT_BYTES
from pipeline.serving.training_reference import RECORD_FILE

FILE_NAME = RECORD_FILE

Bytes = npt.NDArray[np.uint8]

_DIGEST_BYTES = 32
_EXPECTED = f"a {FILE_NAME} that training wrote"


@dataclass(frozen=True, order=True)
class UnknownWeights:
    """Weights that training started from, of which nobody recorded what they learned from, by their file's digest.

    If they know all of COCO's 80 classes, they probably learned from COCO train2017.
    """

    sha256: str
    coco: bool


@dataclass(frozen=True, eq=False)
class LearnedImages:
    """The images that a model learned from, each once, by ascending digest."""

    sha256: Bytes  # `(N, 32)`, the digest of each image's file
    fingerprints: Bytes  # `(N, FINGERPRINT_BYTES)`; zeros for a flat image
    unknown_weights: tuple[UnknownWeights, ...] = ()  # that the model descends from, and whose images are not known

    def __len__(self) -> int:
        return len(self.sha256)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The record as arrays, for a file that holds nothing else."""
        return {
            "sha256": self.sha256,
            "looks": self.fingerprints,  # as earlier versions called them
            "unknown_sha256": _table([bytes.fromhex(each.sha256) for each in self.unknown_weights], _DIGEST_BYTES),
            "unknown_coco": np.array([each.coco for each in self.unknown_weights], np.bool_),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> LearnedImages:
        """Build a record from what `to_arrays` gives; a `DataError` if an array is missing or of another shape."""
        try:
            digests = arrays["unknown_sha256"].reshape(-1, _DIGEST_BYTES)
            pairs = zip(map(bytes, digests), arrays["unknown_coco"].tolist(), strict=True)
            unknown = tuple(UnknownWeights(digest.hex(), bool(coco)) for digest, coco in pairs)
            tables = arrays["sha256"], arrays["looks"]
            for table, width in zip(tables, (_DIGEST_BYTES, FINGERPRINT_BYTES), strict=True):
                if table.dtype != np.uint8 or table.shape != (len(tables[0]), width):
                    raise ValueError(f"a table is {table.dtype} {table.shape}")
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"the record of learned images is incomplete: {error}", expected=_EXPECTED) from error
        return cls(*tables, unknown)

    def write(self, path: Path) -> Path:
        """Write the record as an `.npz` file, the same bytes for the same record."""
        path.write_bytes(self._content())
        return path

    @classmethod
    def read(cls, path: Path) -> LearnedImages:
        """Read what `write` wrote; a `MissingError` or `DataError` if there is no such file or it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls.from_arrays(dict(file))
        except FileNotFoundError:
            raise MissingError("there is no record of learned images", where=path, expected=_EXPECTED) from None
        except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            found = error.problem if isinstance(error, DataError) else f"the record cannot be read: {error}"
            raise DataError(found, where=path, expected=_EXPECTED, remedy="train the model again") from error

    def summary(self) -> dict[str, Any]:
        """What `model.json` says of it: how many images, the digest of the file, the unknown weights."""
        unknown = [asdict(each) for each in self.unknown_weights]
        return {"images": len(self), "sha256": hashlib.sha256(self._content()).hexdigest(), "unknown_weights": unknown}

    def _content(self) -> bytes:
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **self.to_arrays())  # its entries are all dated 1980
        return file.getvalue()


def learn_images(
    *folders: Path, before: LearnedImages | None = None, names: Sequence[Sequence[str]] = ()
) -> LearnedImages:
    """Record the images of datasets, each once, and those that the weights learned from which training starts from.

    `names` are those of each folder's images, where they are known; otherwise its annotations are read.
    """
    prints: dict[bytes, bytes] = {}
    if before is not None:
        prints |= zip(map(bytes, before.sha256), map(bytes, before.fingerprints), strict=True)
    for folder, known in zip_longest(folders, names):
        for fact in _facts(folder, known).values():
            prints.setdefault(bytes.fromhex(fact.digest), fact.fingerprint or bytes(FINGERPRINT_BYTES))
    digests = sorted(prints)
    fingerprints = _table([prints[digest] for digest in digests], FINGERPRINT_BYTES)
    unknown = sorted(set(before.unknown_weights)) if before is not None else ()
    return LearnedImages(_table(digests, _DIGEST_BYTES), fingerprints, tuple(unknown))


def find_seen(learned: LearnedImages, folder: Path) -> dict[str, Literal["exact", "similar"]]:
    """Find the images of a test set that a model learned from: the very file, or one that looks like it.

    An image is found by its bytes, or by its fingerprint in any of the 8 orientations: re-encoded, resized, a little
    brighter or cropped, mirrored, turned by quarters. The order is that of the test set.
    """
    facts = _facts(folder)
    known = set(map(bytes, learned.sha256))
    exact = {name for name, fact in facts.items() if bytes.fromhex(fact.digest) in known}
    others = [name for name, fact in facts.items() if name not in exact and fact.fingerprint]
    prints = _table([facts[name].fingerprint for name in others], FINGERPRINT_BYTES)
    is_similar = find_similar(prints, learned.fingerprints[learned.fingerprints.any(1)])
    found = exact.union(others[i] for i in np.flatnonzero(is_similar))
    return {name: "exact" if name in exact else "similar" for name in facts if name in found}


def _facts(folder: Path, names: Sequence[str] | None = None) -> dict[str, ImageFacts]:
    if names is None:
        names = [image.file_name for image in read_coco(folder / "annotations.json").images]
    facts = inspect(folder / "images", list(dict.fromkeys(names)))
    for name, fact in facts.items():
        if not fact.digest:
            problem = f"an image of the dataset has no bytes to compare: {fact.problem}"
            raise MissingError(problem, where=folder / "images" / name, remedy="make the dataset again")
    return facts


def _table(rows: list[bytes], width: int) -> Bytes:
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, width)
