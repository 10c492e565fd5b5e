"""Where a dataset comes from: what is recorded, what is read of it, and that it is the same on every machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases import cases

from pipeline.data.coco import Annotation, Category, CocoDataset, Image, write_coco
from pipeline.data.conversion import select
from pipeline.data.dataset_folder import write_subset
from pipeline.data.dataset_origin import (
    LOADED_FROM,
    DatasetOrigin,
    ImageLicence,
    portable,
    read_origin,
    with_source,
)
from pipeline.data.split.dataset_split import split

EMPTY = CocoDataset((), (), ())
BY, BY_NC = {"id": 4, "name": "CC BY", "url": "https://x.org/by"}, {"id": "nc", "name": "CC BY-NC", "url": ""}


def licensed(*licences: Any, stated: Any = (BY, BY_NC)) -> CocoDataset:
    """An image for each licence, with the number that it has in the file, or without one for None."""
    images = tuple(
        Image(i, f"{i}.png", 9, 9, {} if licence is None else {"license": licence})
        for i, licence in enumerate(licences, 1)
    )
    return CocoDataset(images, (), (), {}, tuple(stated))


@cases(
    "url, expected",
    {
        "sample": ("sample://shapes?images=4&size=64", "sample://shapes?images=4&size=64"),
        "path": ("/home/anna/street", "street"),
        "path with a slash": ("~/pictures/street/", "street"),
        "here": (".", Path.cwd().name),
        "up from here": ("../", Path.cwd().parent.name),
        "a folder and a dot": ("/home/anna/street/.", "street"),
        "root": ("/", "/"),
        "file URL": ("file:///home/anna/street.zip", "street.zip"),
        "variable": ("${DATA}/street.zip", "street.zip"),
        "password": ("https://anna:secret@host/a/b.zip", "https://host/a/b.zip"),
        "signature": ("https://host/a/b.zip?sig=secret&x=1#y", "https://host/a/b.zip"),
        "bucket": ("s3://bucket/a/b", "s3://bucket/a/b"),
        "database file": ("sqlite:////home/anna/a.db", "sqlite:///a.db"),
        "database server": ("postgresql://u:p@host:5432/name", "postgresql://host:5432/name"),
        "API": ("cvat+https://host/tasks/7", "cvat+https://host/tasks/7"),
        "file in an archive here": ("zip://images/*.png::file:///home/anna/a.zip", "zip://images/*.png::a.zip"),
        "file in an archive at a path": ("zip://images/a.png::/home/anna/a.zip", "zip://images/a.png::a.zip"),
        "address": ("http://[::1]:8080/api", "http://[::1]:8080/api"),
        "address of a database": ("postgresql://u:p@[::1]:5432/db", "postgresql://[::1]:5432/db"),
        "address with a zone": ("http://[fe80::1%eth0]/a", "http://[fe80::1%eth0]/a"),
        "file in an archive at an address": (
            "zip://a.png::http://[2001:db8::7]/b.zip",
            "zip://a.png::http://[2001:db8::7]/b.zip",
        ),
        "brackets in a path": ("zip://a[1].png::/home/anna/b].zip", "zip://a[1].png::b].zip"),
        "nothing": ("", ""),
    },
)
def test_a_source_is_recorded_without_secrets_and_without_this_machine(url: str, expected: str) -> None:
    assert portable(url) == expected


def test_what_is_recorded_is_read_and_replaces_an_older_record() -> None:
    first = with_source(replace(EMPTY, info={"version": "1.0"}), "/a/old.zip", annotations="/a/all.xml", format="cvat")
    dataset = with_source(first, "https://host/b.zip?key=1", format="coco")
    assert dataset.info == {"version": "1.0", LOADED_FROM: {"source": "https://host/b.zip", "format": "coco"}}
    origin = DatasetOrigin.of(first)
    assert (origin.source, origin.annotations, origin.format) == ("old.zip", "all.xml", "cvat")
    assert origin.published == {"version": "1.0"}


@cases(
    "info, name",
    {
        "described": ({"description": "Streets\n of Rome", LOADED_FROM: {"source": "rome.zip"}}, "Streets of Rome"),
        "by its file": ({LOADED_FROM: {"source": "https://host/rome.zip"}}, "rome.zip"),
        "by its folder": ({LOADED_FROM: {"source": "s3://bucket/rome/"}}, "rome"),
        "an earlier version's": ({}, ""),
        "of other types": ({"description": ["Rome"], LOADED_FROM: "rome.zip", "year": True}, ""),
    },
)
def test_a_dataset_has_a_name_where_something_is_recorded(info: dict[str, Any], name: str) -> None:
    origin = DatasetOrigin.of(replace(EMPTY, info=info))
    assert origin.name == name
    assert origin.published == {}


def test_what_else_the_source_publishes_is_text_without_secrets() -> None:
    info = {"url": "https://host/rome?token=1", "year": 2026, "contributor": "", "images": 4, "version": None}
    assert DatasetOrigin.of(replace(EMPTY, info=info)).published == {"url": "https://host/rome", "year": "2026"}


@cases(
    "text, shown",
    {
        "URL": ("https://me:s3cret@host/a?token=s3cret", "https://host/a"),
        "URL in a sentence": ("Rome, see https://host/a?token=s3cret.", "Rome, see https://host/a."),
        "half a letter": ("Rome \ud83d", "Rome ?"),
    },
)
def test_each_text_is_without_secrets_and_can_be_written(tmp_path: Path, text: str, shown: str) -> None:
    """What a file says in any place, when it is read and when it was written beside a model."""
    names = ("url", "version", "year", "contributor", "date_created")
    info: dict[str, Any] = {"description": text, **dict.fromkeys(names, text)}
    info[LOADED_FROM] = dict.fromkeys(("source", "annotations", "format"), text)
    licence = {"id": text, "name": text, "url": text}
    dataset = replace(licensed(text, stated=[licence]), info=info)
    expected = DatasetOrigin(
        shown, shown, shown, shown, dict.fromkeys(names, shown), (ImageLicence(shown, shown, 1),), images=1
    )
    assert DatasetOrigin.of(dataset) == expected


def test_half_a_letter_in_the_name_of_a_class_can_be_written() -> None:
    dataset = replace(EMPTY, categories=(Category(1, "cat \ud83d"), Category(2, "dog")))
    assert DatasetOrigin.of(dataset).classes == ("cat ?", "dog")


@cases(
    "dataset, licences, unlicensed",
    {
        "counted, frequent first": (
            licensed("nc", 4, "nc", None),
            [ImageLicence("CC BY-NC", "", 2), ImageLicence("CC BY", "https://x.org/by", 1)],
            1,
        ),
        "unused are left out": (licensed(4), [ImageLicence("CC BY", "https://x.org/by", 1)], 0),
        "for the dataset as a whole": (
            licensed(None, stated=[BY, BY_NC]),
            [ImageLicence("CC BY", "https://x.org/by", 0), ImageLicence("CC BY-NC", "", 0)],
            1,
        ),
        "number as text": (licensed("4"), [ImageLicence("CC BY", "https://x.org/by", 1)], 0),
        "unknown number": (licensed(7, 4), [ImageLicence("CC BY", "https://x.org/by", 1)], 1),
        "without a name": (licensed(1, stated=[{"id": 1, "url": "u"}]), [ImageLicence("u", "u", 1)], 0),
        "empty, as CVAT writes": (licensed(0, stated=[{"id": 0, "name": "", "url": ""}]), [], 1),
        "none": (licensed(None, None, stated=()), [], 2),
    },
)
def test_licences_are_those_of_the_images(dataset: CocoDataset, licences: list[Any], unlicensed: int) -> None:
    origin = DatasetOrigin.of(dataset)
    assert (list(origin.licences), origin.unlicensed) == (licences, unlicensed)


def test_preparation_keeps_source_and_licences(write_picture: Any, tmp_path: Path) -> None:
    images = tuple(Image(i, f"{i}.png", 40, 30, {"license": 4 if i % 2 else "nc"}) for i in range(1, 9))
    for image in images:
        write_picture(tmp_path / "images" / image.file_name, 40, 30)
    boxes = tuple(Annotation(i, i, 1, (1.0, 1.0, 9.0, 9.0), 81.0, iscrowd=int(i == 1)) for i in range(1, 9))
    raw = CocoDataset(images, boxes, (Category(1, "cat"),), {"description": "Cats"}, (BY, BY_NC))
    dataset = with_source(raw, "/home/anna/cats", format="voc")
    selected, _ = select(dataset, rename={"cat": "animal"}, max_images=7)
    parts = split(selected, train_share=0.5, eval_share=0.25)
    write_subset(parts.train, tmp_path / "images", tmp_path / "train")
    origin = read_origin(tmp_path / "train")
    assert (origin.source, origin.format, origin.name, origin.classes) == ("cats", "voc", "Cats", ("animal",))
    assert sum(each.images for each in origin.licences) == origin.images == len(parts.train.images)
    assert origin.objects == sum(not each.iscrowd for each in parts.train.annotations)
    assert parts.train.licenses == raw.licenses, "numbers in the images mean what they meant"


def test_a_dataset_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    write_coco(EMPTY, tmp_path / "annotations.json")
    assert read_origin(tmp_path) == DatasetOrigin()


@pytest.mark.parametrize("place", ["one", "two/deep"])
def test_a_record_does_not_depend_on_the_machine(tmp_path: Path, place: str) -> None:
    recorded = with_source(EMPTY, str(tmp_path / place / "street"), format="yolo")
    assert recorded.info == {LOADED_FROM: {"source": "street", "format": "yolo"}}
