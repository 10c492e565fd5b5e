from __future__ import annotations

from typing import Any

import pytest
from annotation_folder import AnnotationFolder, boxes_of, refusals, subsets_of
from cases import cases

from pipeline.data.formats.reading import read_annotations
from pipeline.data.parsed import NO_AREA
from pipeline.errors import DataError

META = """<meta><task><id>5</id><name>t</name><source>street.mp4</source>
<original_size><width>100</width><height>50</height></original_size>
<labels><label><name>dog</name></label><label><name>cat</name></label>
<label><name>nose</name><parent>dog</parent></label></labels></task></meta>"""


def image(*shapes: str, name: str = "a.jpg", rest: str = 'width="100" height="50"') -> str:
    return f'<image id="0" name="{name}" {rest}>{"".join(shapes)}</image>'


def annotations(*inside: str, meta: str = META) -> str:
    start = "<?xml version='1.0' encoding='utf-8'?><annotations><version>1.1</version>"
    return f"{start}{meta}{''.join(inside)}</annotations>"


BOX = '<box label="cat" xtl="1" ytl="2" xbr="11" ybr="22" occluded="1" z_order="0"/>'


CUBOID = """<cuboid label="cat" xtl1="1" ytl1="5" xbl1="1" ybl1="22" xtr1="9" ytr1="5" xbr1="9" ybr1="22"
 xtl2="3" ytl2="2" xbl2="3" ybl2="19" xtr2="11" ytr2="2" xbr2="11" ybr2="19"/>"""
SKELETON = """<skeleton label="dog"><points label="nose" outside="0" points="1,2"/>
<points label="nose" outside="0" points="11,22"/><points label="nose" outside="1" points="90,40"/></skeleton>"""
USUAL = (1, 2, 10, 20)


@cases(
    "drawn, bbox",
    {
        "box": (BOX, USUAL),
        "turned box": ('<box label="cat" xtl="0" ytl="10" xbr="20" ybr="20" rotation="90"/>', (5, 5, 10, 20)),
        "swapped corners": ('<box label="cat" xtl="9" ytl="2" xbr="1" ybr="22"/>', (1, 2, 8, 20)),
        "polygon": ('<polygon label="cat" points="1,2;11,2; 5.5,22"/>', USUAL),
        "polyline": ('<polyline label="cat" points="1,2;11,22"/>', USUAL),
        "points": ('<points label="cat" points="1,2;11,22;3,3"/>', USUAL),
        "ellipse": ('<ellipse label="cat" cx="6" cy="12" rx="5" ry="10"/>', USUAL),
        "turned ellipse": ('<ellipse label="cat" cx="12" cy="7" rx="5" ry="10" rotation="90"/>', (2, 2, 20, 10)),
        "mask": ('<mask label="cat" left="1" top="2" width="10" height="20" rle="3, 197"/>', USUAL),
        "cuboid": (CUBOID, USUAL),
        "skeleton": (SKELETON, USUAL),
    },
)
def test_shapes(annotation_folder: AnnotationFolder, drawn: Any, bbox: tuple[Any, ...]) -> None:
    dataset = annotation_folder.dataset({"annotations.xml": annotations(image(drawn))}, "a.jpg")
    assert dataset.annotations[0].bbox == pytest.approx(bbox)
    assert [(each.id, each.name) for each in dataset.categories] == [(1, "dog"), (2, "cat")]


def test_what_has_no_area_is_left_out_and_counted(annotation_folder: AnnotationFolder) -> None:
    shapes = (
        '<points label="cat" points="1,2"/>',
        '<polyline label="cat" points="1,2;1,9"/>',
        '<tag label="cat"/>',
        BOX.replace("/>", '><attribute name="big">true</attribute></box>'),
    )
    dataset = annotation_folder.dataset({"a.xml": annotations(image(*shapes))}, "a.jpg")
    (left,) = dataset.annotations
    assert not left.iscrowd, "of the attributes, 'is_crowd' alone says so"
    assert dataset.images[0].extra["left_out"] == {NO_AREA: 2}, "a tag is no shape"


def test_names_sizes_and_subsets_of_images(annotation_folder: AnnotationFolder) -> None:
    images = (
        image(BOX, rest='width="7" height="9" subset="Train"'),
        image(name="x/b.jpg", rest='subset="Validation"'),
        image(name="gone.jpg", rest='width="7" height="9" subset="Test"'),
        image(name="c.jpg", rest='width="7" height="9" subset="other"'),
    )
    dataset = annotation_folder.dataset({"a.xml": annotations(*images)}, "images/a.jpg", "images/b.jpg", "images/c.jpg")
    assert [(each.id, each.file_name, each.width) for each in dataset.images] == [
        (1, "gone.jpg", 7),
        (2, "images/a.jpg", 7),
        (3, "images/b.jpg", 100),
        (4, "images/c.jpg", 7),
    ]
    assert list(subsets_of(dataset).values()) == ["test", "train", "eval", ""]


def test_labels_that_the_description_lacks_follow(annotation_folder: AnnotationFolder) -> None:
    dataset = annotation_folder.dataset({"a.xml": annotations(image(BOX, BOX.replace("cat", "ape")), meta="")}, "a.jpg")
    assert dataset.classes == ("ape", "cat")


def at(frame: int, left: float, outside: int = 0, **more: object) -> str:
    rest = " ".join(f'{key}="{value}"' for key, value in more.items())
    return f'<box frame="{frame}" outside="{outside}" xtl="{left}" ytl="2" xbr="{left + 10}" ybr="22" {rest}/>'


def track(*shapes: str, label: str = "cat", rest: str = "") -> str:
    return f'<track id="0" label="{label}" {rest}>{"".join(shapes)}</track>'


def lefts(dataset: Any) -> dict[int, list[float]]:
    """The left edges of the boxes by frame."""
    return {int(name[-10:-4]): [each[1] for each in boxes] for name, boxes in boxes_of(dataset).items()}


@cases(
    "shapes, expected",
    {
        "each frame": ((at(0, 1), at(1, 2), at(2, 4, 1)), {0: [1], 1: [2], 2: [], 3: [], 4: [], 8: []}),
        "between keyframes": ((at(0, 0), at(8, 16)), {0: [0], 1: [2], 2: [4], 3: [6], 4: [8], 8: [16]}),
        "in any order": ((at(8, 16), at(0, 0)), {0: [0], 1: [2], 2: [4], 3: [6], 4: [8], 8: [16]}),
        "away for a while": ((at(1, 1), at(3, 1, 1), at(8, 5)), {0: [], 1: [1], 2: [1], 3: [], 4: [], 8: [5]}),
        "on frames that are not there": ((at(5, 0), at(7, 10)), {0: [], 1: [], 2: [], 3: [], 4: [], 8: []}),
        "keyframe not there": ((at(2, 0), at(6, 8)), {0: [], 1: [], 2: [0], 3: [2], 4: [4], 8: []}),
    },
)
def test_tracks(annotation_folder: AnnotationFolder, shapes: tuple[Any, ...], expected: dict[Any, Any]) -> None:
    annotation_folder.image(*(f"x/street/frame_{i:06d}.jpg" for i in (0, 1, 2, 3, 4, 8)), "other.jpg")
    annotation_folder.write({"a.xml": annotations(track(*shapes))})
    assert lefts(annotation_folder.read()) == expected


def test_a_polygon_between_keyframes_is_its_box(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.image(*(f"street/frame_{i:06d}.jpg" for i in range(3)))
    shapes = (f'<polygon frame="{i}" outside="0" points="{i},0;{i + 10},0;{i},10"/>' for i in (0, 2))
    annotation_folder.write({"a.xml": annotations(track(*shapes))})
    first, middle, last = annotation_folder.read().annotations
    assert (middle.bbox, middle.segmentation, middle.area) == ((1, 0, 10, 10), None, 100)
    assert first.area == last.area == 50


def test_clips_of_a_project_by_their_task(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.image("one/frame_000000.jpg", "two/frame_000000.jpg")
    tasks = "".join(
        f"<task><id>{i}</id><subset>{subset}</subset><source>{name}.mp4</source></task>"
        for i, name, subset in ((1, "one", "Train"), (2, "two", "Test"))
    )
    both = track(at(0, 1), rest='task_id="1"'), track(at(0, 2), rest='task_id="2"')
    annotation_folder.write(
        {"a.xml": annotations(*both, meta=f"<meta><project><tasks>{tasks}</tasks></project></meta>")}
    )
    dataset = annotation_folder.read()
    assert boxes_of(dataset) == {
        "one/frame_000000.jpg": [("cat", 1, 2, 10, 20)],
        "two/frame_000000.jpg": [("cat", 2, 2, 10, 20)],
    }
    assert subsets_of(dataset) == {"one/frame_000000.jpg": "train", "two/frame_000000.jpg": "test"}


def one(*shapes: str, name: str = "a.jpg") -> dict[str, str]:
    return {"a.xml": annotations(image(*shapes, name=name))}


test_refused = refusals(
    {
        "no number": (one(BOX.replace('"11"', '"x"')), "xbr of a box is 'x'.*a.xml: image a.jpg"),
        "no points": (one('<polygon label="cat" points=""/>'), "polygon has no points.*image a.jpg"),
        "no label": (one(BOX.replace('"cat"', '""')), "class is '' where a name.*image a.jpg"),
        "no name": (one(name=""), "an image has no name.*a.xml: image 1"),
        "no frames": ({"a.xml": annotations(track(at(0, 1)))}, "no frame of street is.*street/frame_000000.jpg"),
    }
)


def test_tracks_of_no_named_video_are_of_the_only_clip(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.image("street/frame_000000.jpg", "street/frame_000001.jpg")
    annotation_folder.write({"a.xml": annotations(track(at(1, 1)), meta="")})
    assert len(boxes_of(annotation_folder.read())["street/frame_000001.jpg"]) == 1
    annotation_folder.image("b.jpg")
    with pytest.raises(DataError, match="does not name the video"):
        annotation_folder.read()


def test_tracks_on_frames_in_the_only_folder_there_is(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.image("frame_000000.PNG", "frame_000001.PNG")
    annotation_folder.write({"a.xml": annotations(track(at(1, 3)), track(at(1, 5)))})
    assert lefts(annotation_folder.read()) == {0: [], 1: [3, 5]}


def test_tracks_on_a_task_of_images_by_their_order(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.image("images/frame_000000.jpg", "images/frame_000005.jpg")
    task = "<meta><task><id>1</id><size>2</size><mode>annotation</mode></task></meta>"
    annotation_folder.write({"a.xml": annotations(track(at(1, 3), at(2, 3, 1)), meta=task)})
    with pytest.raises(DataError, match="set pair_by to order"):
        annotation_folder.read()
    found = read_annotations(annotation_folder.folder, annotation_folder.index, pair_by="order")
    assert lefts(found.dataset) == {0: [], 5: [3]}
