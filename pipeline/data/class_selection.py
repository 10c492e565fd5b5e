"""Which category becomes which class: names are chosen, renamed, merged and dropped; unknown names are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.data.coco import Category
from pipeline.errors import DataError, UsageError, did_you_mean

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
        raise DataError("every class is dropped", remedy="drop fewer")
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
