from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from cases import cases

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


@cases(
    "settings, match",
    {
        "unknown": ({"itms": "x"}, "did you mean 'items'"),
        "unlike any": ({"xyzzy": "x"}, "there are: items, next"),
        "the token itself": ({"token": "s3cret"}, "into an environment variable"),
        "a header": ({"headers": "X-Key: s3cret"}, "into an environment variable"),
        "token for its name": ({"token_env": "s3cret"}, "not the name of an environment variable"),
        "JWT for its name": ({"token_env": "eyJ.s3cret.x"}, "not the name of an environment variable"),
        "token in the scheme": ({"token_scheme": "Bearer s3cret"}, "not a single word"),
        "no number": ({"requests_per_second": "fast"}, "'fast'[\\s\\S]*a number, 0 or more"),
        "not a number": ({"requests_per_second": "nan"}, "a number, 0 or more"),
        "negative": ({"requests_per_second": "-1"}, "0 or more"),
        "no whole number": ({"first_page": "1.5"}, "a whole number, 0 or more"),
        "no step": ({"page_step": "0"}, "1 or more"),
        "unknown format": ({"box_format": "xyhw"}, "did you mean 'xywh'"),
        "unknown units": ({"units": "pixel"}, "did you mean 'pixels'"),
        "three paths": ({"box": "x,y,w"}, "one path of four numbers, or four paths"),
        "no image": ({"image": ""}, r"api\.image is empty"),
        "no label": ({"label": ""}, r"api\.label is empty"),
        "two ways of paging": ({"next": "n", "page_parameter": "p"}, "exclude each other"),
    },
)
def test_wrong_settings(settings: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        parse_settings(settings)
    assert "s3cret" not in str(caught.value)


def test_every_setting_is_explained() -> None:
    assert all(f"\n        {each.name}: " in (ApiSettings.__doc__ or "") for each in fields(ApiSettings))
