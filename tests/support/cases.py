"""Named cases of a parametrized test, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest


def cases(names: str, table: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Run a test once for each row: its id, and the values of the named arguments, a tuple if there are several."""
    return pytest.mark.parametrize(names, list(table.values()), ids=list(table))
