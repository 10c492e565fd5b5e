"""Errors in the words of the user: of the source they named, not of the folder its files were put into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from pipeline.errors import DataError, MissingError, PipelineError

_WHERE = str(PipelineError("", where=0)).removesuffix("0")  # how an error begins the line of its place
_NONE: Mapping[str, str] = MappingProxyType({})


@contextmanager
def told_of(source: str, folder: Path | None = None, elsewhere: Mapping[str, str] = _NONE) -> Iterator[None]:
    """Put the source in front of the place that an error within names, or in place of none.

    Args:
        source: Where the files came from, as it may be shown.
        folder: Where they lie now, which is not to be shown.
        elsewhere: The sources of those that came from another one, by name in the folder.

    Raises:
        DataError: As raised within, `where` being the source and the file in it.
        MissingError: Likewise.
    """
    try:
        yield
    except (DataError, MissingError) as error:
        details = str(error)[len(error.problem) :]
        if details.startswith(_WHERE):
            place, line, rest = details.removeprefix(_WHERE).partition("\n")
            inside = place.removeprefix(f"{folder}/") if folder else place
            told = source if inside in {str(folder), source} else _place(inside, source, elsewhere)
            details = f"{told}{line}{rest}"
        else:
            details = f"{source}{details}"
        error.args = (f"{error.problem}{_WHERE}{details}",)
        raise


def _place(place: str, source: str, elsewhere: Mapping[str, str]) -> str:
    """`a.zip: b/c.json: images[3]`; where the source is that one file, `c.json: images[3]`."""
    source = next((elsewhere[name] for name in elsewhere if f"{place}:".startswith(f"{name}:")), source)
    last = source.rpartition("/")[2]
    if last and f"{place}:".startswith(f"{last}:"):
        return source + place.removeprefix(last)
    return f"{source}: {place}"
