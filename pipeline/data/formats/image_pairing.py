"""Which image each annotation means, decided for all annotations of a data set together.

An absent image is absent: its annotations must not land on another with the same file name. So where several names
fit one image, the one whose folders agree best has it. Names whose folders differ from the image's are taken only where
no folders agree anywhere in the data set, as in annotations from another machine. Where one name is in several parts of
the data, and the source is the folder of one of them, it is that part's.

A file of its own for each image names the image twice: by its content, as VOC's `<filename>` does, and by its own
name. The way that fits all files wins. If both do and disagree, the images' sizes decide, or the user must.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.data.formats.image_index import ImageIndex, Match
from pipeline.data.formats.scalars import Faults
from pipeline.data.formats.written_names import WrittenName
from pipeline.errors import DataError

log = logging.getLogger(__name__)

BY_CONTENT, BY_FILE_NAME, BY_ORDER = "content", "file_name", "order"


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


_Name = tuple[WrittenName, Reference]
_Outcome = Match | DataError | None  # the error where several images fit equally


def pair(references: Sequence[Reference], images: ImageIndex, faults: Faults, *, pair_by: str = "") -> list[str]:
    """The name of the image that each reference means; where it does not exist, the annotation's own name for it.

    `pair_by` is `content` or `file_name` where the user decides what names the image of a file of its own.
    """
    own = [each for each in references if each.own]
    shared = [(each.by_content, each) for each in references if not each.own]
    of_shared = iter(zip(shared, _look_up(shared, images), strict=True))
    of_own = iter(_of_own_files(own, images, pair_by))
    looked_up = [next(of_own if each.own else of_shared) for each in references]
    matches = [outcome if isinstance(outcome, Match) else None for _, outcome in looked_up]
    unclear = {id(outcome): outcome for _, outcome in looked_up if isinstance(outcome, DataError)}
    for error in unclear.values():  # once for all annotations that have the name
        faults.add(error)
    named = []
    for match, ((absent, reference), _) in zip(_of_the_best_names(matches, references, faults), looked_up, strict=True):
        name = ""
        with faults.of():
            name = match.image if match else images.name_when_absent(absent, reference.where or reference.file)
        named.append(name)
    return named


def _look_up(names: Sequence[_Name], images: ImageIndex) -> list[_Outcome]:
    """Look up each name once; folders of files of their own count if those of any of them agree with the images'."""
    known: dict[WrittenName, _Outcome] = {}
    for name, reference in names:
        if name not in known:
            known[name] = _match(name, reference, images, anywhere=False)
    if not any(isinstance(each, Match) and each.agreeing for each in known.values()):
        for name, reference in names:
            if name.own and known[name] is None:
                known[name] = _match(name, reference, images, anywhere=True)
    return [known[name] for name, _ in names]


def _match(name: WrittenName, reference: Reference, images: ImageIndex, *, anywhere: bool) -> _Outcome:
    try:
        return images.match(name, anywhere=anywhere)
    except DataError as error:
        error.where = reference.where or reference.file
        return error


def _of_own_files(files: Sequence[Reference], images: ImageIndex, pair_by: str) -> list[tuple[_Name, _Outcome]]:
    """The names and matches by content or by file name, whichever fits all files; where they agree, either."""
    by = {BY_CONTENT: [(each.by_content, each) for each in files]}
    by[BY_FILE_NAME] = [(each.by_file_name, each) for each in files]
    ways = {
        way: list(zip(by[way], _look_up(by[way], images), strict=True))
        for way in by
        if pair_by not in by or pair_by == way
    }
    if len(ways) == 1:
        return ways[pair_by]
    pairs = list(zip(ways[BY_CONTENT], ways[BY_FILE_NAME], strict=True))
    differ = [i for i, ((_, one), (_, other)) in enumerate(pairs) if _differ(one, other)]
    if differ:
        return ways[_way({way: [each for _, each in ways[way]] for way in ways}, files, differ, images)]
    return [_either(one, other) for one, other in pairs]


def _either(content: tuple[_Name, _Outcome], file_name: tuple[_Name, _Outcome]) -> tuple[_Name, _Outcome]:
    by_content = isinstance(content[1], Match) or (content[0][0].path and not isinstance(file_name[1], Match))
    return content if by_content else file_name


def _way(
    ways: Mapping[str, Sequence[_Outcome]], files: Sequence[Reference], differ: Sequence[int], images: ImageIndex
) -> str:
    """Whether the content or the file name tells the images, where these differ."""
    one_to_one = [way for way in ways if _is_one_to_one(ways[way])]
    whole = [way for way in one_to_one if all(isinstance(each, Match) for each in ways[way])]
    left = next((each for each in (whole, one_to_one) if len(each) == 1), [])
    left = left or [way for way in ways if not _wrong_sizes(ways[way], files, images)]
    if len(left) != 1:
        one = files[differ[0]]
        problem = f"{len(differ)} of {len(files)} annotation files name another image than their own names do"
        example = f"{one.file} names '{one.path}'"
        remedy = f"set pair_by to {BY_FILE_NAME} if the files' own names are right, else to {BY_CONTENT}"
        raise DataError(f"{problem}: {example}", where=one.file, expected="one image", remedy=remedy)
    log.info("the images of %d annotation files are told by the %s", len(files), left[0].replace("_", " "))
    return left[0]


def _differ(one: _Outcome, other: _Outcome) -> bool:
    return isinstance(one, Match) and isinstance(other, Match) and one.image != other.image


def _is_one_to_one(outcomes: Sequence[_Outcome]) -> bool:
    counts = Counter(each.image for each in outcomes if isinstance(each, Match))
    return bool(counts) and max(counts.values()) == 1


def _wrong_sizes(outcomes: Sequence[_Outcome], files: Sequence[Reference], images: ImageIndex) -> int:
    sized = [(each, file.size) for each, file in zip(outcomes, files, strict=True) if all(file.size)]
    return sum(images.size(each.image) not in {size, size[::-1]} for each, size in sized if isinstance(each, Match))


def _of_the_best_names(
    matches: Sequence[Match | None], references: Sequence[Reference], faults: Faults
) -> list[Match | None]:
    """The matches without those that other names of the data set contradict."""
    if any(each.in_place for each in matches if each):
        matches = [None if each and each.out_of_place else each for each in matches]
    own = {each.image for each in matches if each and each.of_the_place}
    if any(each.image in own and each.of_the_place is False for each in matches if each):
        matches = [None if each and each.of_the_place is False else each for each in matches]
    agree = any(each.agreeing and not each.elsewhere for each in matches if each)
    others = [each for each in matches if each and each.elsewhere]
    if others and agree:
        matches = [None if each and each.elsewhere else each for each in matches]
    elif others:
        log.warning("the folders in the annotations differ from the images': %d images found by name", len(others))
    best: dict[str, int] = defaultdict(int)  # how many folders agree in the best name of an image
    for match in filter(None, matches):
        best[match.image] = max(best[match.image], match.agreeing)
    kept = [each if each and (each.exact or each.agreeing == best[each.image]) else None for each in matches]
    _report_conflicts(kept, references, faults)
    return kept


def _report_conflicts(matches: Sequence[Match | None], references: Sequence[Reference], faults: Faults) -> None:
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
