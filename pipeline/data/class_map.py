"""Files that map category names to class names: one line or entry a category, an empty name to drop it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import DataError, MissingError, UsageError

ClassMap = Mapping[str, str | None]
_Entry = tuple[str, str | None, str]  # from, to, and where that is written

_HEADER = ["from", "to"]
_EXPECTED = "CSV under the header 'from,to', or a YAML or JSON object of old name: new name; an empty or null one drops"


def read_class_map(path: str | Path) -> dict[str, str | None]:
    """Read a mapping file.

    Old names are read literally: `no`, `1` and `null` are names.

    Args:
        path: A `.csv` file with the header `from,to`, where an empty `to` drops the category; or a `.yaml`, `.yml` or
            `.json` file with one object, where null does. An empty text for none.

    Returns:
        The new name of each category, or None for one to drop; empty where no file is named. `select` takes it as
        `rename`.

    Raises:
        UsageError: The suffix is of no such file.
        MissingError: There is no such file.
        DataError: It is not of that format, or says two things of one category.
    """
    if not str(path):
        return {}
    path = Path(path)
    read = {".csv": _from_csv, ".json": _from_json, ".yaml": _from_yaml, ".yml": _from_yaml}.get(path.suffix.lower())
    if read is None:
        raise UsageError(f"a mapping file cannot end in '{path.suffix}'", where=path, expected=_EXPECTED)
    try:
        return _unique(read(path.read_text(encoding="utf-8-sig")))
    except (FileNotFoundError, IsADirectoryError):
        raise MissingError("there is no mapping file", where=path, expected=_EXPECTED) from None
    except (ValueError, csv.Error, yaml.YAMLError, RecursionError) as error:
        raise DataError(f"the mapping file cannot be read: {error}", where=path, expected=_EXPECTED) from error


def _unique(entries: Iterable[_Entry]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for old, new, where in entries:
        if not old:
            raise ValueError(f"{where}: a name is empty")
        if old in found:
            raise ValueError(f"{where}: '{old}' occurs twice")
        found[old] = new
    return found


def _from_csv(text: str) -> list[_Entry]:
    reader = csv.reader(text.splitlines(), strict=True)
    header = [cell.strip() for cell in next(reader, [])]
    if header != _HEADER:
        raise ValueError(f"line 1: the header is '{','.join(header)}'")
    entries: list[_Entry] = []
    for row in reader:
        where = f"line {reader.line_num}"
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(_HEADER):
            raise ValueError(f"{where}: {len(row)} fields")
        entries.append((row[0].strip(), row[1].strip() or None, where))
    return entries


def _from_json(text: str) -> list[_Entry]:
    pairs = json.loads(text, object_pairs_hook=_Pairs)
    if not isinstance(pairs, _Pairs):
        raise ValueError("it holds no object")
    return [(old, _target(new, f"'{old}'"), f"'{old}'") for old, new in pairs]


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, with duplicate names kept."""


def _target(value: Any, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{where}: the new name is no text")
    return value or None


def _from_yaml(text: str) -> list[_Entry]:
    # Nodes, not values: a name such as `no` or `1` would become a boolean or a number.
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("it holds no object")
    entries: list[_Entry] = []
    for old, new in node.value:
        where = f"line {old.start_mark.line + 1}"
        if not isinstance(old, yaml.ScalarNode) or not isinstance(new, yaml.ScalarNode):
            raise ValueError(f"{where}: a name is no text")
        dropped = new.tag == "tag:yaml.org,2002:null"
        entries.append((old.value, None if dropped else new.value or None, where))
    return entries
