"""HTML pages from the templates of this package: escaped, and an error where a value is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(name: str, filters: Mapping[str, Callable[..., str]], /, **values: Any) -> str:
    """Render a template, which may include others."""
    environment = Environment(
        loader=PackageLoader("pipeline.evaluation", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name).render(values)
