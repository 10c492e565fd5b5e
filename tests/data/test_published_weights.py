from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipeline.data.published_weights import coco_weights, published_weights
from pipeline.errors import UsageError

HOSTS = {
    "mmdet": "https://download.openmmlab.com/mmdetection/v2.0/yolox/",
    "Megvii": "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/",
}


@pytest.mark.parametrize(
    ("variant", "source"),
    [("nano", "Megvii"), ("tiny", "mmdet"), ("s", "mmdet"), ("m", "Megvii"), ("l", "mmdet"), ("x", "mmdet")],
)
def test_coco_takes_mmdets_weights_where_there_are_some(variant: str, source: str) -> None:
    chosen = coco_weights(variant)
    assert (chosen.variant, chosen.source) == (variant, source)


@pytest.mark.parametrize("entry", published_weights(), ids=lambda entry: f"{entry.variant} by {entry.source}")
def test_an_entry_makes_sense(entry: Any) -> None:
    assert entry.url.startswith(HOSTS[entry.source])
    assert urlsplit(entry.url).path.rpartition("/")[2].startswith(f"yolox_{entry.variant}")
    assert entry.url.endswith(".pth")
    assert re.fullmatch(r"([0-9a-f]{64})?", entry.sha256)
    assert re.fullmatch(r"[0-9a-f]{8}" if entry.source == "mmdet" else "", entry.sha256_start)
    assert replace(entry, sha256="0" * 64).sha256_start == "0" * 64
    assert entry.licence == "Apache-2.0"
    assert 0.2 < entry.mAP < 0.6
    assert published_weights().count(replace(entry)) == 1


def test_a_larger_variant_has_the_higher_map() -> None:
    for source, variants in {"mmdet": ["tiny", "s", "l", "x"], "Megvii": ["nano", "tiny", "s", "m", "l", "x"]}.items():
        found = {entry.variant: entry.mAP for entry in published_weights() if entry.source == source}
        assert sorted(found, key=found.get) == variants
    assert max(Counter((entry.variant, entry.source) for entry in published_weights()).values()) == 1


def test_without_a_variant_there_is_no_choice() -> None:
    with pytest.raises(UsageError, match=r"none is given[\s\S]*l, m, nano, s, tiny, x[\s\S]*give the variant"):
        coco_weights("")


@pytest.mark.parametrize(("variant", "near"), [("tinny", "tiny"), ("Nano", "nano"), ("large", "l")])
def test_a_wrong_variant_is_refused_with_the_nearest(variant: str, near: str) -> None:
    with pytest.raises(UsageError, match=rf"no published weights of YOLOX-{variant}[\s\S]*did you mean '{near}'"):
        coco_weights(variant)
