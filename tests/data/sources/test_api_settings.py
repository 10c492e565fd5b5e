from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from pipeline.data.sources.api_settings import ApiSettings, parse_settings
from pipeline.errors import UsageError


def test_texts_become_what_they_stand_for() -> None:
    found = parse_settings({"items": " data ", "requests_per_second": "2.5", "first_page": "0", "box": "x, y,w , h"})
    assert (found.items, found.requests_per_second, found.first_page) == ("data", 2.5, 0)
    assert found.box_paths == ("x", "y", "w", "h")
    assert parse_settings({}) == ApiSettings()


def test_defaults_of_a_source_give_way() -> None:
    assert parse_settings({}, defaults={"image": "."}).image == "."
    assert parse_settings({"image": "photo"}, defaults={"image": "."}).image == "photo"


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        pytest.param({"itms": "x"}, "did you mean 'items'", id="unknown"),
        pytest.param({"xyzzy": "x"}, "there are: items, next", id="unlike any"),
        pytest.param({"token": "s3cret"}, "into an environment variable", id="the token itself"),
        pytest.param({"headers": "X-Key: s3cret"}, "into an environment variable", id="a header"),
        pytest.param({"token_env": "s3cret"}, "not the name of an environment variable", id="token for its name"),
        pytest.param({"token_env": "eyJ.s3cret.x"}, "not the name of an environment variable", id="JWT for its name"),
        pytest.param({"token_scheme": "Bearer s3cret"}, "not a single word", id="token in the scheme"),
        pytest.param({"requests_per_second": "fast"}, "'fast'[\\s\\S]*a number, 0 or more", id="no number"),
        pytest.param({"requests_per_second": "nan"}, "a number, 0 or more", id="not a number"),
        pytest.param({"requests_per_second": "-1"}, "0 or more", id="negative"),
        pytest.param({"first_page": "1.5"}, "a whole number, 0 or more", id="no whole number"),
        pytest.param({"page_step": "0"}, "1 or more", id="no step"),
        pytest.param({"box_format": "xyhw"}, "did you mean 'xywh'", id="unknown format"),
        pytest.param({"units": "pixel"}, "did you mean 'pixels'", id="unknown units"),
        pytest.param({"box": "x,y,w"}, "one path of four numbers, or four paths", id="three paths"),
        pytest.param({"image": ""}, r"api\.image is empty", id="no image"),
        pytest.param({"label": ""}, r"api\.label is empty", id="no label"),
        pytest.param({"next": "n", "page_parameter": "p"}, "exclude each other", id="two ways of paging"),
    ],
)
def test_wrong_settings(settings: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        parse_settings(settings)
    assert "s3cret" not in str(caught.value)


def test_every_setting_is_explained() -> None:
    assert all(f"\n        {each.name}: " in (ApiSettings.__doc__ or "") for each in fields(ApiSettings))
