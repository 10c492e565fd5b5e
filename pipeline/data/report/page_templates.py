"""Pages from the templates of a package: HTML is escaped, and an error where a value is missing.

Each page may include `base.css`, which all pages of reports share: one look, and a dark one where the reader has it so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape


def render_page(
    package: str, folder: str, name: str, filters: Mapping[str, Callable[..., str]], /, **values: Any
) -> str:
    """Render a template in a folder of a package; text is escaped for HTML only.

    The page can be written as UTF-8: a lone surrogate, which a name in a JSON file may have, becomes a question mark.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, folder), PackageLoader("pipeline.data", "report")]),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name).render(values).encode("utf-8", "replace").decode()
