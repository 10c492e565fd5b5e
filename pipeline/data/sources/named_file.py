"""An annotation file named as the source, such as `data.yaml`: its folder is the source, and it alone is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.data.fetch.credentials import expand, redact
from pipeline.data.fetch.fetching import fetch
from pipeline.data.sources.source import FetchOptions, FileSource
from pipeline.errors import DataError

_SUFFIXES = (".yaml", ".yml", ".json", ".xml", ".csv")
_MOST = 1 << 20  # bytes of a data.yaml
_SPLITS = ("train", "val", "valid", "test")


def with_its_folder(source: FileSource, options: FetchOptions) -> FileSource:
    """The folder of an annotation file at a path or URL, with the file as its `member`; any other source as it is.

    Raises:
        MissingError: There is no such file.
        DataError: It is on a web server, which lists no folder, or a `data.yaml` whose images lie elsewhere.
    """
    folder, slash, name = source.url.rpartition("/")
    if "${" in name or not name.split("?")[0].lower().endswith(_SUFFIXES) or folder.endswith(":/"):
        return source
    shown = redact(source.url)
    if expand(source.url).lower().startswith(("http://", "https://")):
        raise DataError(
            "this is an annotation file, and a web server does not list the images beside it",
            where=shown,
            remedy="name the images' archive or local folder as the source, and this URL in annotations_url",
        )
    found = fetch(source.url, options.cache, sha256=source.sha256, timeout=options.timeout, backoff=options.backoff)
    if found.path.is_dir():
        return source
    if source.is_local and (elsewhere := _images_elsewhere(found.path)):
        raise DataError(
            f"the images that {name} names lie in another folder",
            where=shown,
            remedy=f"name {elsewhere} as the source, and {found.path.absolute()} in annotations_url",
        )
    at_top = slash and not folder.removeprefix("file://")
    return replace(source, url=f"{folder}/" if at_top else folder or ".", sha256="", member=name)


def _images_elsewhere(file: Path) -> str:
    """The folder of the data set that a `data.yaml` names, if it is not the file's own; or else an empty text."""
    content = _content(file)
    entries = [each for key in _SPLITS for each in _texts(content.get(key))] or [""]
    own, root = file.parent.resolve(), content.get("path")
    inside = [own / each.removeprefix("../").removeprefix("./") for each in entries if each]
    if any(each.exists() for each in inside):
        return ""
    bases = [own / root, Path.cwd() / root] if isinstance(root, str) and root else [own]
    for base in bases:
        found = [path.resolve() for each in entries if (path := base / each).exists()]
        if found and not any(path.is_relative_to(own) for path in found):
            return _data_set(found)
    return ""


def _data_set(places: list[Path]) -> str:
    """The folder that holds images and labels, of the folders or lists of images: labels lie beside `images`."""
    common = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in places]))
    parts = common.parts
    last = max((i for i, part in enumerate(parts) if part == "images"), default=len(parts))
    return str(Path(*parts[:last]))


def _content(file: Path) -> dict[str, Any]:
    if not file.name.lower().endswith((".yaml", ".yml")) or file.stat().st_size > _MOST:
        return {}
    try:
        content = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}  # whose reader says what is wrong
    return content if isinstance(content, dict) else {}


def _texts(value: Any) -> Iterator[str]:
    yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str) and each)
