from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.checks.findings import Finding
from pipeline.data.report.dataset_figures import worst_examples
from pipeline.data.report.finding_samples import choose


def finding(rule, severity="warning", file_name="0.png", bbox=None):
    return Finding(rule, severity, f"image {file_name}", "repaired", f"what {rule} found", file_name, bbox)


def rules(findings, count):
    return [(each.rule, each.file_name) for each in choose(findings, count)]


MANY = [finding("outside", file_name=f"{i}.png") for i in range(50)]


@pytest.mark.parametrize(
    ("findings", "count", "expected"),
    [
        pytest.param([], 3, [], id="none"),
        pytest.param([finding("class", file_name="")], 3, [], id="about-no-image"),
        pytest.param(
            [*MANY, finding("broken", "error"), finding("dark", "info")],
            4,
            [("broken", "0.png"), ("outside", "0.png"), ("outside", "1.png"), ("dark", "0.png")],
            id="every-rule-has-a-turn-and-the-severe-come-first",
        ),
        pytest.param(
            [*MANY, finding("broken", "error"), finding("dark", "info")],
            2,
            [("broken", "0.png"), ("outside", "0.png")],
            id="too-few-places-go-to-the-severe",
        ),
        pytest.param([finding("twice"), finding("twice")], 9, [("twice", "0.png")], id="an-image-once-for-a-rule"),
        pytest.param(
            [finding("mixed", "info", "a.png"), finding("mixed", "error", "b.png")],
            1,
            [("mixed", "b.png")],
            id="the-severest-of-a-rule",
        ),
        pytest.param(MANY, 0, [], id="none-asked-for"),
    ],
)
def test_choice(findings, count, expected):
    assert rules(findings, count) == expected


def test_pictures_and_words(two_classes):
    (two_classes.folder / "broken.png").write_bytes(b"nothing")
    gallery = worst_examples(
        [
            finding("outside", bbox=(-5.0, 0.0, 30.0, 30.0)),
            finding("broken", "error", "broken.png"),
            finding("missing", "error", "gone <b>.png"),
        ],
        two_classes.folder,
    )
    broken, missing, outside = gallery.rows[0].pictures
    assert outside.data.startswith(b"\xff\xd8\xff")
    assert outside.caption == "outside, repaired: what outside found (0.png)"
    assert (broken.data, broken.alt) == (b"", "The file is not a picture that can be shown.")
    assert (missing.data, missing.alt) == (b"", "The file is missing.")
    page = gallery._repr_html_()
    assert page.count("<img") == 1
    assert "gone &lt;b&gt;.png" in page
    assert "The file is missing." in page


def test_nothing_is_said():
    assert "No finding is about an image." in worst_examples([], Path("nowhere"))._repr_html_()
