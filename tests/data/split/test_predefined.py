from __future__ import annotations

from typing import Any

import pytest
from cases import cases

from pipeline.data.coco import Image
from pipeline.data.groups import read_ties
from pipeline.data.split.predefined import SUBSETS, find_predefined


def placed(
    subsets: Any, *, groups: Any = (), videos: Any = (), test_names: Any = (), honour: Any = True
) -> tuple[Any, ...]:
    """Place images a, b, c... with these subsets ("-" for none); groups and videos as texts of their letters."""
    names = "abcdefgh"[: len(subsets)]
    images = []
    for i, (name, subset) in enumerate(zip(names, subsets, strict=True)):
        extra = {} if subset == "-" else {"subset": {"t": "train", "e": "eval", "s": "test"}.get(subset, subset)}
        extra |= next(({"video": text} for text in videos if name in text), {})
        images.append(Image(i, name, 9, 9, extra))
    keys = {name: text for text in groups for name in text}
    ties = read_ties(images, keys, "video" if videos else "")
    found = find_predefined(images, ties, test_names=test_names, honour=honour)
    letters = {0: "t", 1: "e", 2: "s", -1: "-", -2: "x"}
    return "".join(letters[i] for i in found.subset.tolist()), found


@cases(
    "subsets, options, owners, present",
    {
        "all three and one without": ("tes-", {}, "tes-", "train eval test"),
        "train and test": ("ts", {}, "ts", "train test"),
        "train and eval": ("tte-", {}, "tte-", "train eval"),
        "test and some without": ("s-", {}, "s-", "test"),
        "train alone is no split": ("ttt", {}, "---", ""),
        "train alone is no split beside others either": ("tt-", {}, "---", ""),
        "all in test is no split": ("sss", {}, "---", ""),
        "ignored": ("tes", {"honour": False}, "---", ""),
        "the list is the test set": ("tes-", {"test_names": "a"}, "se--", "eval"),
        "the list alone": ("ts", {"test_names": "a"}, "s-", ""),
        "a word that is none": (("val", "train", "test"), {}, "-ts", "train test"),
    },
)
def test_what_the_data_say(subsets: str | tuple[Any, ...], options: dict[Any, Any], owners: str, present: str) -> None:
    letters, found = placed(subsets, **options)
    assert (letters, {SUBSETS[i] for i in found.present}) == (owners, set(present.split()))
    assert not found.findings


@pytest.mark.parametrize(
    ("subsets", "options", "owners", "findings"),
    [
        pytest.param("tse", {"groups": ["ab"]}, "xse", ["a dropped near duplicate of b, which is in test"],
                     id="test before train"),
        pytest.param("tse", {"groups": ["bc"]}, "tsx", ["c dropped near duplicate of b, which is in test"],
                     id="test before eval"),
        pytest.param("ets", {"groups": ["ab"]}, "exs", ["b dropped near duplicate of a, which is in eval"],
                     id="eval before train"),
        pytest.param("tes", {"groups": ["abc"]}, "xxs", ["a dropped near duplicate of c", "b dropped"], id="all three"),
        pytest.param("ttes", {"groups": ["ab"]}, "ttes", [], id="duplicates of one subset"),
        pytest.param("-ts", {"groups": ["ac"]}, "sts", [], id="one without goes with its duplicate"),
        pytest.param("--ts", {"groups": ["ab"]}, "--ts", [], id="two without stay free"),
        pytest.param("-tst", {"groups": ["abc"]}, "sxst", ["b dropped"], id="one without goes to the stronger"),
        pytest.param("tse", {"videos": ["ab"]}, "tse", ["a reported 1 images in train and 1 images in test"],
                     id="a video is left where its makers put it"),
        pytest.param("ts-", {"videos": ["ac"]}, "tst", [], id="one without goes with its video"),
        pytest.param("ts-", {"videos": ["abc"]}, "tss", ["reported 1 images in train and 2 images in test"],
                     id="one without goes to the stronger of a video"),
        pytest.param("t-s", {"groups": ["ab"], "videos": ["bc"]}, "txs", ["b dropped tied to images of train"],
                     id="between a duplicate and a video"),
        pytest.param("t--s", {"groups": ["bc"], "videos": ["ab", "cd"]}, "txss", ["b dropped tied to images of train"],
                     id="between two videos"),
        pytest.param("ttss", {"groups": ["ad", "bc"]}, "xxss", ["a dropped", "b dropped"], id="findings by name"),
        pytest.param("ttss", {"videos": ["da", "bc"]}, "ttss", ["b reported", "a reported"], id="videos by name"),
        pytest.param("tsts", {"groups": ["ab"], "videos": ["ac"]}, "xsts", ["a dropped near duplicate of b"],
                     id="what is left out ties nothing"),
        pytest.param("----", {"groups": ["ab"], "test_names": "a"}, "sx--", ["b dropped near duplicate of a, which is"],
                     id="duplicate of a listed image"),
        pytest.param("----", {"videos": ["ab"], "test_names": "a"}, "sx--", ["b dropped same video as a, which is on"],
                     id="of a listed image's video"),
        pytest.param("-te-", {"videos": ["ab"], "test_names": "a"}, "sxe-", ["b dropped same video as a"],
                     id="of a listed image's video, whatever the data say"),
        pytest.param("----", {"groups": ["ab"], "test_names": "ab"}, "ss--", [], id="both listed"),
        pytest.param("---", {"groups": ["bc"], "videos": ["ab"], "test_names": "a"}, "sx-", ["b dropped same video"],
                     id="only what is tied directly"),
    ],
)  # fmt: skip
def test_what_belongs_together(subsets: str, options: dict[Any, Any], owners: str, findings: list[Any]) -> None:
    letters, found = placed(subsets, **options)
    assert letters == owners
    said = [f"{each.file_name} {each.action} {each.detail}" for each in found.findings]
    assert len(said) == len(findings)
    assert all(part in text for part, text in zip(findings, said, strict=True)), said
    assert {(each.rule, each.severity) for each in found.findings} <= {("straddles-the-split", "warning")}


@cases(
    "subsets, said",
    {
        "a word that is none": (("val", "train", "test"), "not train, eval or test but val"),
        "train alone": ("tt", "all images in train: that is no split"),
        "a split": ("ts-", "the data's own split: {'test': 1, 'train': 1}; 1 images without"),
    },
)
def test_it_says_so(subsets: str | tuple[Any, ...], said: str, caplog: pytest.LogCaptureFixture) -> None:
    placed(subsets)
    assert said in caplog.text
