"""A Bento in a folder, as containers need to know it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import DataError, MissingError
from pipeline.serving.model_metadata import METADATA_FILE, ModelMetadata

RECORD = "bento.yaml"
REQUIREMENTS = "env/python/requirements.txt"

_REMEDY = "name the folder of a Bento that model_pack made, such as out/dev/demo/bento_service"


@dataclass(frozen=True)
class PackedBento:
    """A Bento and its model."""

    folder: Path
    name: str
    version: str
    python: str  # the version of Python that its packages are pinned for, such as 3.11
    environment: dict[str, str]  # variables that it sets for the service
    requirements: tuple[tuple[str, str], ...]  # name and version of each package
    model: ModelMetadata

    @property
    def tag(self) -> str:
        """Its name and version."""
        return f"{self.name}:{self.version}"

    @property
    def title(self) -> str:
        """The model in a few words."""
        count = len(self.model.classes)
        return f"{self.model.name}, {count} class{'' if count == 1 else 'es'}"

    @property
    def facts(self) -> dict[str, str]:
        """The commit, its time and the eval mAP, of which old or untrained models lack some."""
        accuracy = self.model.training.get("eval_mAP")
        known = {
            "commit": self.model.origin.get("commit"),
            "created": self.model.origin.get("created"),
            "eval_mAP": None if accuracy is None else f"{accuracy:.4f}",
        }
        return {name: value for name, value in known.items() if value}

    @classmethod
    def read(cls, folder: Path) -> PackedBento:
        """Read the record, the requirements and the model's metadata.

        Raises:
            MissingError: There is no such folder, or it lacks a file.
            DataError: A file is not what packing writes.
        """
        try:
            record: Any = yaml.safe_load((folder / RECORD).read_text(encoding="utf-8"))
            lines = (folder / REQUIREMENTS).read_text(encoding="utf-8").split()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingError("there is no Bento", where=error.filename, remedy=_REMEDY) from error
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError("the Bento's record cannot be read", where=folder / RECORD, remedy=_REMEDY) from error
        pins = [line.partition("==") for line in lines]
        if unpinned := [line for line, (_, _, version) in zip(lines, pins, strict=True) if not version]:
            raise DataError(f"{unpinned[0]!r} is not pinned", where=folder / REQUIREMENTS, expected="NAME==VERSION")
        try:
            return cls(
                folder=folder,
                name=record["name"],
                version=record["version"],
                python=record["image"]["python_version"],
                environment={each["name"]: each["value"] for each in record["envs"]},
                requirements=tuple((name, version) for name, _, version in pins),
                model=ModelMetadata.read(folder / "src" / METADATA_FILE),
            )
        except (KeyError, TypeError) as error:
            problem = f"the Bento's record lacks {error}"
            raise DataError(problem, where=folder / RECORD, expected="the record of BentoML 1.4") from error
