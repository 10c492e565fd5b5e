"""Image files in a folder: which there are, and how they get there from a folder or an archive."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from pipeline.data.sources.archives import unpack

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def image_names(folder: Path) -> set[str]:
    """The image files in a folder, as POSIX paths relative to it; hidden ones are none of them."""
    names = set()
    for root, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".") and each != "__MACOSX"]
        inside = Path(root).relative_to(folder)
        names |= {(inside / each).as_posix() for each in files if _is_image(each)}
    return names


def _is_image(name: str) -> bool:
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def copy_images(source: Path, folder: Path) -> None:
    """Copy the images of a folder into another, less the single folders at its top. Nothing is linked."""
    top = _below_single_folders(source)
    for name in tqdm(sorted(image_names(top)), desc="copying images", unit="file", mininterval=0.5, ascii=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(top / name, folder / name)


def unpack_images(archive: Path, folder: Path) -> None:
    """Unpack the images of an archive into a folder, less the single folders at its top."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as draft:
        top = _below_single_folders(unpack(archive, Path(draft) / "unpacked").folder)
        for name in image_names(top):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).replace(folder / name)


def _below_single_folders(folder: Path) -> Path:
    """The folder the images are in, or the several folders are: what lies beside them does not count."""
    inside = [each for each in folder.iterdir() if not each.name.startswith(".") and each.name != "__MACOSX"]
    if any(each.is_file() and _is_image(each.name) for each in inside):
        return folder
    folders = [each for each in inside if each.is_dir() and image_names(each)]
    return _below_single_folders(folders[0]) if len(folders) == 1 else folder
