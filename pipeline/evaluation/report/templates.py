"""Pages from the templates of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.data.report.page_templates import render_page


def render(name: str, filters: Mapping[str, Callable[..., str]], /, **values: Any) -> str:
    """Render a template, which may include others, and what the pages of all reports share."""
    return render_page("pipeline.evaluation.report", "", name, filters, **values)
