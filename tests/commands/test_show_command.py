"""The Markdown of a run: names cannot become markup."""

import pytest

from pipeline.commands.show_command import escape


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a|b", r"a\|b", id="a column"),
        pytest.param("a\nb", "a b", id="a line break"),
        pytest.param("<b>", "&lt;b&gt;", id="HTML"),
        pytest.param("@me", "@\u200bme", id="a mention"),
        pytest.param("*x*", r"\*x\*", id="emphasis"),
    ],
)
def test_names_are_shown_as_they_are(text: str, expected: str) -> None:
    assert escape(text) == expected
