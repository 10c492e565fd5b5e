"""Which image each annotation means, decided for all annotations of a data set together.

An absent image is absent: its annotations must not land on another with the same file name. So where several names
fit one image, the one whose folders agree best has it. Names whose folders differ from the image's are taken only where
no folders agree anywhere in the data set, as in annotations from another machine.

A file of its own for each image names the image twice: by its content, as VOC's `<filename>` does, and by its own
name. The way that fits all files wins. If both do and disagree, the images' sizes decide, or the user must.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.data.formats.image_index import ImageIndex, Match, WrittenName
from pipeline.data.formats.scalars import Faults
from pipeline.errors import DataError

log = logging.getLogger(__name__)

BY_CONTENT, BY_FILE_NAME, BY_ORDER = "content", "file_name", "order"
_Found = Sequence[Match | None]


@dataclass(frozen=True, slots=True)
class Reference:
    """How an annotation names its image."""

    path: str  # as written; empty where the annotation file's own name tells
    file: str  # the annotation file
    own: bool = False  # whether the file belongs to this image alone
    part: str = ""  # the part of the data, as the annotation names it
    where: str = ""  # for messages; empty for the file
    size: tuple[int, int] = (0, 0)  # declared, in pixels

    @property
    def by_content(self) -> WrittenName:
        """The image's name as it is written."""
        folder, _, file = self.file.rpartition("/")
        return WrittenName(self.path, folder, self.part, "" if self.own else file.rpartition(".")[0], self.own)

    @property
    def by_file_name(self) -> WrittenName:
        """The image's name as the annotation file's own name gives it."""
        return WrittenName(PurePosixPath(self.file).with_suffix("").as_posix(), part=self.part, own=True)


def pair(references: Sequence[Reference], images: ImageIndex, faults: Faults, *, pair_by: str = "") -> list[str]:
    """The name of the image that each reference means; where it does not exist, the annotation's own name for it.

    `pair_by` is `content` or `file_name` where the user decides what names the image of a file of its own.
    """
    matches = _matched(references, images, faults, pair_by)
    matches = _of_the_best_names(matches, references, faults)
    named = []
    for reference, match in zip(references, matches, strict=True):
        name = ""
        with faults.of():
            absent = reference.by_content if reference.path else reference.by_file_name
            name = match.image if match else images.name_when_absent(absent, reference.where or reference.file)
        named.append(name)
    return named


def _matched(references: Sequence[Reference], images: ImageIndex, faults: Faults, pair_by: str) -> _Found:
    own = [i for i, each in enumerate(references) if each.own]
    named = [i for i in own if references[i].path]
    found: list[Match | None] = [None] * len(references)
    shared = [i for i, each in enumerate(references) if not each.own]
    _fill(found, shared, [references[i].by_content for i in shared], references, images, faults)
    by_file, by_content = list(found), list(found)
    if pair_by != BY_CONTENT:
        _fill(by_file, own, [references[i].by_file_name for i in own], references, images, faults)
    if pair_by != BY_FILE_NAME:
        _fill(by_content, named, [references[i].by_content for i in named], references, images, faults)
    chosen = _chosen([by_content[i] for i in own], [by_file[i] for i in own], [references[i] for i in own], images)
    for i, match in zip(own, chosen, strict=True):
        found[i] = match
    return found


def _fill(
    found: list[Match | None],
    rows: Sequence[int],
    names: Sequence[WrittenName],
    references: Sequence[Reference],
    images: ImageIndex,
    faults: Faults,
) -> None:
    """Look up each name once; folders of files of their own count if those of any of them agree with the images'."""
    known: dict[WrittenName, Match | None] = {}
    unclear: set[WrittenName] = set()

    def look_up(row: int, name: WrittenName, *, anywhere: bool) -> None:
        try:
            known[name] = images.match(name, anywhere=anywhere)
        except DataError as error:
            known[name] = None
            unclear.add(name)
            error.where = references[row].where or references[row].file
            faults.add(error)

    for row, name in zip(rows, names, strict=True):
        if name not in known:
            look_up(row, name, anywhere=False)
    if not any(match is not None and match.strength > 1 for match in known.values()):
        for row, name in zip(rows, names, strict=True):
            if name.own and known[name] is None and name not in unclear:
                look_up(row, name, anywhere=True)
    for row, name in zip(rows, names, strict=True):
        found[row] = known[name]


def _chosen(content: _Found, file_name: _Found, files: Sequence[Reference], images: ImageIndex) -> _Found:
    """The matches by content or by file name, whichever fits all files; or else, where they agree, either."""
    differ = [i for i, (one, other) in enumerate(zip(content, file_name, strict=True)) if _differ(one, other)]
    if differ:
        ways = {BY_CONTENT: content, BY_FILE_NAME: file_name}
        fits = [way for way in ways if _is_one_to_one(ways[way])]
        whole = [way for way in fits if all(ways[way])]
        left = whole if len(whole) == 1 else fits
        if len(left) != 1:
            wrong = {way: _wrong_sizes(ways[way], files, images) for way in ways}
            left = [way for way in ways if not wrong[way]]
        if len(left) != 1:
            one = files[differ[0]]
            problem = f"{len(differ)} of {len(files)} annotation files name another image than their own names do"
            example = f"{one.file} names '{one.path}'"
            remedy = f"set pair_by to {BY_FILE_NAME} if the files' own names are right, else to {BY_CONTENT}"
            raise DataError(f"{problem}: {example}", where=one.file, expected="one image", remedy=remedy)
        log.info("the images of %d annotation files are told by the %s", len(files), left[0].replace("_", " "))
        return ways[left[0]]
    return [one or other for one, other in zip(content, file_name, strict=True)]


def _differ(one: Match | None, other: Match | None) -> bool:
    return one is not None and other is not None and one.image != other.image


def _is_one_to_one(matches: _Found) -> bool:
    counts = Counter(each.image for each in matches if each)
    return bool(counts) and max(counts.values()) == 1


def _wrong_sizes(matches: _Found, files: Sequence[Reference], images: ImageIndex) -> int:
    pairs = ((each.image, file.size) for each, file in zip(matches, files, strict=True) if each and all(file.size))
    return sum(images.size(image) not in {size, size[::-1]} for image, size in pairs)


def _of_the_best_names(matches: _Found, references: Sequence[Reference], faults: Faults) -> _Found:
    """The matches without those that other names of the data set contradict."""
    if any(each.in_place for each in matches if each):
        matches = [None if each and each.out_of_place else each for each in matches]
    agree = any(each.strength > 1 and not each.elsewhere for each in matches if each)
    others = [each for each in matches if each and each.elsewhere]
    if others and agree:
        matches = [None if each and each.elsewhere else each for each in matches]
    elif others:
        log.warning("the folders in the annotations differ from the images': %d images found by name", len(others))
    claims: dict[str, dict[tuple[str, ...], int]] = defaultdict(dict)
    for match in filter(None, matches):
        claim = claims[match.image]
        claim[match.identity] = max(claim.get(match.identity, 0), match.strength)
    best = {image: max(claim.values()) for image, claim in claims.items() if len(claim) > 1}
    kept: list[Match | None] = [
        None if match and match.image in best and claims[match.image][match.identity] < best[match.image] else match
        for match in matches
    ]
    _report_conflicts(kept, references, faults)
    return kept


def _report_conflicts(matches: _Found, references: Sequence[Reference], faults: Faults) -> None:
    """Add a fault for each image that several names or several files of their own mean."""
    first: dict[str, tuple[Match, Reference]] = {}
    told: set[tuple[str, str]] = set()
    for match, reference in zip(matches, references, strict=True):
        if match is None:
            continue
        other, before = first.setdefault(match.image, (match, reference))
        pair_ = before.file if reference.own else "/".join(other.identity), match.image
        if reference.own and before.own and before.file != reference.file:
            problem = f"two annotation files are for one image, {match.image}: {before.file} and {reference.file}"
            faults.add(DataError(problem, remedy="remove the outdated one, or add the images of the others"))
        elif other.identity != match.identity and pair_ not in told:
            told.add(pair_)
            problem = f"two names are for one image, {match.image}: '{before.path}' and '{reference.path}'"
            remedy = "name the folder that holds all images in source_url"
            faults.add(DataError(problem, where=reference.where or reference.file, remedy=remedy))
