"""Errors that name the source that the user gave, not the folder that its files were put into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from pipeline.errors import DataError, MissingError, PipelineError

_WHERE = str(PipelineError("", where=0)).removesuffix("0")  # the start of an error's line with its place
_NONE: Mapping[str, str] = MappingProxyType({})


@contextmanager
def located_in(source: str, folder: Path | None = None, elsewhere: Mapping[str, str] = _NONE) -> Iterator[None]:
    """Put the source before the place that an error in the block names.

    Args:
        source: Where the files came from, without secrets.
        folder: Where they are now, which is not shown.
        elsewhere: The sources of files that came from another one, by name in the folder.

    Raises:
        DataError: As raised in the block; `where` is the source and the file in it.
        MissingError: Likewise.
    """
    try:
        yield
    except (DataError, MissingError) as error:
        details = str(error)[len(error.problem) :]
        if details.startswith(_WHERE):
            place, line, rest = details.removeprefix(_WHERE).partition("\n")
            inside = place.removeprefix(f"{folder}/") if folder else place
            place = source if inside in {str(folder), source} else _place(inside, source, elsewhere)
            details = f"{place}{line}{rest}"
        else:
            details = f"{source}{details}"
        error.args = (f"{error.problem}{_WHERE}{details}",)
        raise


def _place(place: str, source: str, elsewhere: Mapping[str, str]) -> str:
    """`a.zip: b/c.json: images[3]`; if the source is that one file, `c.json: images[3]`."""
    source = next((elsewhere[name] for name in elsewhere if f"{place}:".startswith(f"{name}:")), source)
    last = source.rpartition("/")[2]
    if last and f"{place}:".startswith(f"{last}:"):
        return source + place.removeprefix(last)
    return f"{source}: {place}"
