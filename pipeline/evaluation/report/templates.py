"""Pages from the templates of this package: HTML is escaped, and an error where a value is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def render(name: str, filters: Mapping[str, Callable[..., str]], /, **values: Any) -> str:
    """Render a template, which may include others; text is escaped for HTML only."""
    environment = Environment(
        loader=PackageLoader("pipeline.evaluation.report", ""),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name).render(values)
