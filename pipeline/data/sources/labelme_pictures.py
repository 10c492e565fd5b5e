"""Pictures within LabelMe's JSON files, of which there are no files of their own.

LabelMe writes each picture into `imageData` of its JSON file, as base64, unless `--nodata` says otherwise. Reference:
https://github.com/wkentaro/labelme.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pipeline.data.images import is_image_name
from pipeline.data.json_keys import has_json_keys
from pipeline.data.sources.image_sink import ImageSink

_KEYS = ("imageData", "shapes", "imagePath")


def write_pictures(
    markup: Mapping[str, Path], pictures: Mapping[str, Path], folder: Path, sink: ImageSink
) -> dict[str, Path]:
    """Write the pictures that only JSON files have into a new folder, and give them by their names in the source.

    A picture has its JSON file's name, with the suffix that `imagePath` has. It is absent as a file if no image is at
    that path or has the JSON file's own name, in its folder; nor elsewhere, unless it belongs to another JSON file.
    """
    stems = {_stem(name) for name in pictures}
    files = {name: path for name, path in markup.items() if name.lower().endswith(".json")}
    labelled = {_stem(name) for name in files} & stems
    elsewhere = {PurePosixPath(name).name for name in pictures if _stem(name) not in labelled}
    elsewhere |= {PurePosixPath(name).stem for name in pictures if _stem(name) not in labelled}
    found: dict[str, Path] = {}
    for name, path in files.items():
        if _stem(name) in stems or PurePosixPath(name).stem in elsewhere or not (content := _content(path)):
            continue
        image = PureWindowsPath(str(content["imagePath"]))  # with slashes or backslashes
        beside = (PurePosixPath(name).parent / image.name).as_posix()
        if beside in pictures or image.name in elsewhere:
            continue
        own_name = _stem(name) + (image.suffix if is_image_name(image.name) else "")
        try:
            data = base64.b64decode("".join(content["imageData"].split()), validate=True)
        except (binascii.Error, ValueError):
            sink.skip(own_name, "the imageData of its LabelMe file is not base64")
            continue
        folder.mkdir(exist_ok=True)
        target = folder / str(len(found))
        target.write_bytes(data)
        found[own_name] = target
    if found:
        sink.remarks.append(f"{len(found)} images are taken from the imageData of LabelMe's files")
    return found


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _content(path: Path) -> dict[str, Any] | None:
    """A LabelMe file with a picture in it; None for any other, whose reader says what is wrong with it."""
    if not has_json_keys(path, *_KEYS):
        return None
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    has_picture = isinstance(content, dict) and isinstance(content.get("imageData"), str) and content["imageData"]
    return content if has_picture and isinstance(content.get("shapes"), list) else None
