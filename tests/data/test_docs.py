"""The page on data says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.data.checks.validation import LOADING_RULES, RULES
from pipeline.data.formats.reading import FORMATS
from pipeline.data.sources.api_settings import ApiSettings
from pipeline.data.split.division import MODES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/data.md").read_text(encoding="utf-8")


def rules_in_markdown() -> str:
    head = "| rule | severity | default | allowed | what |\n|---|---|---|---|---|\n"
    rows = (
        f"| `{each.name}` | {each.severity} | {each.default} | {', '.join(each.allowed)} | {each.summary} |\n"
        for each in (*LOADING_RULES, *RULES)
    )
    return head + "".join(rows)


def test_the_rules_are_those_of_the_table() -> None:
    """On a change: put what this prints between the marks."""
    found = re.search(r"<!-- rules -->\n(.*?)<!-- /rules -->", PAGE, re.DOTALL)
    assert found
    assert found[1] == rules_in_markdown(), rules_in_markdown()


def test_every_format_mode_and_setting_is_explained() -> None:
    missing = [name for name in (*FORMATS, *MODES) if f"`{name}`" not in PAGE]
    settings = PAGE[PAGE.index("| setting |") : PAGE.index("Label Studio needs")]
    missing += [name for name in ApiSettings.model_fields if f"`{name}`" not in settings]
    assert missing == []
