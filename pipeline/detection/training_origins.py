"""What a model was trained from, as a file beside its weights: the given weights, and the sets with their sources.

The file is apart from `model.json`, which the service shows to its clients.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pipeline.data.dataset_origin import DatasetOrigin
from pipeline.data.pretrained import WeightsOrigin
from pipeline.errors import DataError

ORIGINS_FILE = "origins.json"


@dataclass(frozen=True)
class TrainingOrigins:
    """The origins of all that a training used."""

    weights: WeightsOrigin | None  # None for a training from scratch
    sets: Mapping[str, DatasetOrigin]  # `train` and `eval`; empty where nothing was trained

    def write(self, path: Path) -> None:
        """Write them: the same bytes for the same origins."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> TrainingOrigins | None:
        """Read them; None where there is no such file, as earlier versions wrote none.

        Raises:
            DataError: The file is damaged.
        """
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            problem = f"the origins of the training cannot be read: {error.errors()[0]['msg']}"
            raise DataError(problem, where=path, expected="the file as training wrote it") from error
