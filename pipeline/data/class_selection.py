"""Which category becomes which class: names are chosen, renamed, merged and dropped.

A file may map category names to class names: one line or entry a category, an empty name to drop it.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.data.coco import Category
from pipeline.errors import DataError, MissingError, UsageError, did_you_mean

_Entry = tuple[str, str | None, str]  # from, to, and where that is written

_HEADER = ["from", "to"]
_EXPECTED = "CSV under the header 'from,to', or a YAML or JSON object of old name: new name; an empty or null one drops"
_SHOWN = 20  # names in an error


@dataclass(frozen=True)
class Recoding:
    """The classes, numbered from 1, and the class of each category of the source.

    Attributes:
        categories: The classes in order, with ids 1..K.
        number: Class id by category id, without dropped categories.
        merged: Ids of the classes made from more than one category.
    """

    categories: tuple[Category, ...]
    number: Mapping[int, int]
    merged: frozenset[int]


def recode(
    categories: Sequence[Category], classes: Sequence[str], rename: Mapping[str, str | None], drop: Collection[str]
) -> Recoding:
    """Determine the classes.

    A class has the supercategory of the category with its name, or else of its first category.

    Raises:
        UsageError: A name is unknown, wanted twice, empty, both renamed and dropped, or both wanted and dropped.
        DataError: Every category is dropped.
    """
    _check_renaming(categories, rename, drop)
    members: dict[str, list[Category]] = {}
    for category in categories:
        target = None if category.name in drop else rename.get(category.name, category.name)
        if target is not None:
            members.setdefault(target, []).append(category)
    if categories and not members:
        raise DataError("every class is dropped", remedy="drop fewer: see drop_classes, and the class map")
    wanted = _wanted(members, classes, {**rename, **dict.fromkeys(drop)})
    return Recoding(
        tuple(replace(_first(members[name], name), id=i, name=name) for i, name in enumerate(wanted, 1)),
        {category.id: i for i, name in enumerate(wanted, 1) for category in members[name]},
        frozenset(i for i, name in enumerate(wanted, 1) if len(members[name]) > 1),
    )


def _first(members: Sequence[Category], name: str) -> Category:
    return next((category for category in members if category.name == name), members[0])


def _check_renaming(categories: Sequence[Category], rename: Mapping[str, str | None], drop: Collection[str]) -> None:
    names = [category.name for category in categories]
    _refuse_unknown([*rename, *drop], names, {})
    both = sorted(name for name in set(drop) if rename.get(name) is not None)
    if both:
        raise UsageError(f"{_listed(both)} both renamed and dropped", remedy="rename it or drop it")
    if "" in rename.values():
        empty = next(name for name, new in rename.items() if new == "")
        raise UsageError(f"the new name of '{empty}' is empty", remedy="give a name, or name it in drop")


def _wanted(members: Mapping[str, object], classes: Sequence[str], became: Mapping[str, str | None]) -> list[str]:
    if not classes:
        return list(members)
    gone = {old: f"is called '{new}' after renaming" if new else "is dropped" for old, new in became.items()}
    _refuse_unknown(classes, members, gone)
    twice = sorted(name for name, count in Counter(classes).items() if count > 1)
    if twice:
        raise UsageError(f"the class '{twice[0]}' is asked for twice", remedy="name it once")
    return list(classes)


def _refuse_unknown(asked: Iterable[str], known: Collection[str], gone: Mapping[str, str]) -> None:
    unknown = [name for name in dict.fromkeys(asked) if name not in known]
    if not unknown:
        return
    hints = {name: f"'{name}' {gone[name]}" if name in gone else did_you_mean(name, known, most=3) for name in unknown}
    lost = any(not hint for hint in hints.values())
    remedies = [
        hint if len(unknown) == 1 or name in gone else f"for '{name}', {hint}" for name, hint in hints.items() if hint
    ]
    raise UsageError(
        f"the dataset has no {'class' if len(unknown) == 1 else 'classes'} {_quoted(unknown)}",
        remedy="; ".join([*remedies, *([f"there are: {_some(known)}"] if lost else [])]),
    )


def _listed(names: Sequence[str]) -> str:
    return f"the class{'es' * (len(names) > 1)} {_quoted(names)} {'is' if len(names) == 1 else 'are'}"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _some(names: Collection[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(list(names)[:_SHOWN]) + more


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
