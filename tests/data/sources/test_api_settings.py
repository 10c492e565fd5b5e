from __future__ import annotations

from typing import Any

import pytest
from cases import cases

from pipeline.data.sources.api_settings import ABSENT, ApiSettings, find, parse_settings
from pipeline.errors import UsageError

DATA = {"data": {"results": [{"id": 1}, {"id": None}], "count": 2}, "next": None}


def test_texts_become_what_they_stand_for() -> None:
    found = parse_settings({"items": " data ", "requests_per_second": "2.5", "box": "x, y,w , h"})
    assert (found.items, found.requests_per_second, found.box) == ("data", 2.5, "x, y,w , h")
    assert parse_settings({}) == ApiSettings()


@cases(
    "settings, match",
    {
        "unknown": ({"itms": "x"}, "did you mean 'items'"),
        "unlike any": ({"xyzzy": "x"}, "there are: items, next"),
        "the token itself": ({"token": "s3cret"}, "into an environment variable"),
        "a header": ({"headers": "X-Key: s3cret"}, "into an environment variable"),
        "token for its name": ({"token_env": "s3cret"}, r"api.token_env: [\s\S]*into an environment variable"),
        "JWT for its name": ({"token_env": "eyJ.s3cret.x"}, "into an environment variable"),
        "token in the scheme": ({"token_scheme": "Bearer s3cret"}, "api.token_scheme: "),
        "no number": ({"requests_per_second": "fast"}, "api.requests_per_second: Input should be a valid number"),
        "not a number": ({"requests_per_second": "nan"}, "api.requests_per_second: "),
        "negative": ({"requests_per_second": "-1"}, "greater than or equal to 0"),
        "unknown format": ({"box_format": "xyhw"}, "'xywh', 'xyxy' or 'cxcywh'"),
        "three paths": ({"box": "x,y,w"}, "neither one path of four numbers nor four paths"),
        "no image": ({"image": ""}, "api.image: "),
        "no label": ({"label": ""}, "api.label: "),
        "two ways of paging": ({"next": "n", "page_parameter": "p"}, "exclude each other"),
    },
)
def test_wrong_settings(settings: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        parse_settings(settings)
    assert "s3cret" not in str(caught.value)


@cases(
    "path, found",
    {
        "nothing is the thing itself": ("", DATA),
        "dot is the thing itself": (".", DATA),
        "keys": ("data.count", 2),
        "index": ("data.results.0.id", 1),
        "null is there": ("data.results.1.id", None),
        "index too large": ("data.results.2", ABSENT),
        "no index from the end": ("data.results.-1", ABSENT),
        "key of a list": ("data.results.id", ABSENT),
        "key of a number": ("data.count.x", ABSENT),
        "key of null": ("next.x.y", ABSENT),
    },
)
def test_find(path: str, found: Any) -> None:
    assert find(DATA, path) is found or find(DATA, path) == found
