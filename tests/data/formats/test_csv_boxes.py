from __future__ import annotations

from typing import Any

import pytest
from annotation_folder import AnnotationFolder, boxes_of, refusals, subsets_of
from cases import cases

from pipeline.errors import DataError

OPEN = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n"
PIXELS = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
CAT = ("cat", 1, 2, 10, 20)


@cases(
    "content",
    {
        "TensorFlow": PIXELS + "a.jpg,100,50,cat,1,2,11,22\n",
        "semicolons": (PIXELS + "a.jpg,100,50,cat,1,2,11,22\n").replace(",", ";"),
        "tabs": (PIXELS + "a.jpg,100,50,cat,1,2,11,22\n").replace(",", "\t"),
        "Windows": (PIXELS + "a.jpg,100,50,cat,1,2,11,22\n\n").replace("\n", "\r\n"),
        "other names, blanks, no size": "Image, Label ,x1,y1,x2,y2\na.jpg, cat,1,2, 11,22.0\n",
        "a path": 'path,label,left,top,right,bottom\n"C:\\x\\a.jpg",cat,1,2,11,22\n',
        "a corner and sides": "image_name,label_name,bbox_x,bbox_y,bbox_width,bbox_height\na.jpg,cat,1,2,10,20\n",
        "sides beside the image's": "img,class,x,y,w,h,image_width,image_height\na.jpg,cat,1,2,10,20,100,50\n",
        "a list": 'image_id,width,height,bbox,label\na,100,50,"[1.0, 2, 10, 20]",cat\n',
        "fractions": "image,label,xmin,ymin,xmax,ymax\na.jpg,cat,0.01,0.04,0.11,0.44\n",
        "fractions as sides": "image,label,x,y,w,h\na.jpg,cat,0.01,0.04,0.10,0.40\n",
        "Open Images": OPEN + "a,xclick,cat,1,0.01,0.11,0.04,0.44,0,0,0\n",
    },
)
def test_layouts(annotation_folder: AnnotationFolder, content: Any) -> None:
    dataset = annotation_folder.dataset({"boxes.csv": content}, "images/a.jpg")
    assert boxes_of(dataset) == {"images/a.jpg": [CAT]}
    assert (dataset.images[0].width, dataset.images[0].height) == (100, 50)


def test_fractions_may_be_a_little_over_the_edge(annotation_folder: AnnotationFolder) -> None:
    content = "image,label,x,y,w,h\na.jpg,cat,0.01,0.04,0.10,0.40\na.jpg,dog,0.5,0.5,0.504,0.5\n"
    dataset = annotation_folder.dataset({"boxes.csv": content}, "a.jpg")
    assert boxes_of(dataset) == {"a.jpg": [CAT, ("dog", 50, 25, pytest.approx(50.4), 25)]}


def test_open_images_groups_and_names(annotation_folder: AnnotationFolder) -> None:
    dataset = annotation_folder.dataset(
        {
            "oidv6-train-annotations-bbox.csv": OPEN + "a,x,/m/01,1,0.01,0.11,0.04,0.44,-1,-1,1\n",
            "validation-annotations-bbox.csv": OPEN
            + "b,x,/m/02,1,0.01,0.11,0.04,0.44,0,0,0\nb,x,/m/03,1,0,1,0,1,0,0,-1\n",
            "class-descriptions-boxable.csv": '/m/02,"Cat, or not"\n/m/01,Dog\n',
        },
        "train/a.jpg",
        "validation/b.jpg",
    )
    assert boxes_of(dataset) == {
        "train/a.jpg": [("Dog", 1, 2, 10, 20)],
        "validation/b.jpg": [("Cat, or not", 1, 2, 10, 20), ("/m/03", 0, 0, 100, 50)],
    }
    assert [each.iscrowd for each in dataset.annotations] == [1, 0, 0]
    assert subsets_of(dataset) == {"train/a.jpg": "train", "validation/b.jpg": "eval"}


@cases("size", {"declared": "7,9", "0": "0,0", "none": ","})
def test_declared_sizes(annotation_folder: AnnotationFolder, size: str) -> None:
    (image,) = annotation_folder.dataset({"boxes.csv": PIXELS + f"a.jpg,{size},cat,1,2,11,22\n"}, "a.jpg").images
    assert (image.width, image.height) == ((7, 9) if size == "7,9" else (100, 50))


def test_files_and_columns_are_the_split(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.image("train/a.jpg", "test/a.jpg", "c.jpg", "d.jpg")
    table = "filename,class,xmin,ymin,xmax,ymax,split\nc.jpg,cat,1,2,11,22,val\nd.jpg,,,,,,\n"
    roboflow = PIXELS + "a.jpg,100,50,cat,1,2,11,22\n"
    annotation_folder.write({"all.csv": table, "train/_annotations.csv": roboflow, "test/_annotations.csv": roboflow})
    dataset = annotation_folder.read()
    assert subsets_of(dataset) == {"c.jpg": "eval", "d.jpg": "", "test/a.jpg": "test", "train/a.jpg": "train"}
    assert boxes_of(dataset) == {"c.jpg": [CAT], "d.jpg": [], "test/a.jpg": [CAT], "train/a.jpg": [CAT]}


@cases(
    "rows",
    {
        "RetinaNet": "/x/images/a.jpg,1,2,11,22,cat\n/x/images/b.jpg,,,,,\n",
        "SKU-110K": "a.jpg,1,2,11,22,cat,100,50\nb.jpg,,,,,,100,50\n",
        "makesense": "cat,1,2,10,20,a.jpg,100,50\n,,,,,b.jpg,100,50\n",
    },
)
def test_a_table_without_header_is_read_when_named(annotation_folder: AnnotationFolder, rows: str) -> None:
    annotation_folder.image("images/a.jpg", "images/b.jpg")
    annotation_folder.write({"boxes.csv": rows})
    assert boxes_of(annotation_folder.read("csv")) == {"images/a.jpg": [CAT], "images/b.jpg": []}
    with pytest.raises(DataError, match=r"csv: boxes.csv has no header: name the format"):
        annotation_folder.read()


def test_a_table_without_classes_is_read_when_named(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.image("a.jpg", "b.jpg")
    annotation_folder.write({"boxes.csv": "patientId,x,y,width,height,Target\na,1,2,10,20,1\nb,,,,,0\n"})
    assert boxes_of(annotation_folder.read("csv")) == {"a.jpg": [("object", *CAT[1:])], "b.jpg": []}
    with pytest.raises(DataError, match=r"lacks the columns class.*: name the format, if all boxes are of one class"):
        annotation_folder.read()


test_refused = refusals(
    {
        "no number": (
            {"boxes.csv": PIXELS + "a.jpg,100,50,cat,1,2,11,x\n"},
            "bottom is 'x' where a number.*boxes.csv:2",
        ),
        "no class": ({"boxes.csv": PIXELS + "\na.jpg,100,50,,1,2,11,22\n"}, "class is '' where a name.*boxes.csv:3"),
        "no image": ({"boxes.csv": PIXELS + ",100,50,cat,1,2,11,22\n"}, "row names no image.*boxes.csv:2"),
        "short row": ({"boxes.csv": PIXELS + "a.jpg,100,50,cat,1,2\n"}, "row has 6 values.*boxes.csv:2"),
        "size a text": ({"boxes.csv": PIXELS + "a.jpg,wide,50,cat,1,2,11,22\n"}, "width is 'wide'.*boxes.csv:2"),
        "negative size": ({"boxes.csv": PIXELS + "a.jpg,-1,50,cat,1,2,11,22\n"}, "size is -1x50.*boxes.csv:2"),
        "a list of three": ({"boxes.csv": 'image,class,bbox\na,cat,"[1, 2, 3]"\n'}, "box has 3 numbers.*boxes.csv:2"),
        "huge field": (
            {"boxes.csv": PIXELS + f'"{"a" * 200_000}",1,1,cat,1,2,11,22\n'},
            "not CSV: field larger.*boxes.csv:",
        ),
        "empty": ({"boxes.csv": ""}, "lacks the columns image"),
        "one column": (
            {"boxes.csv": OPEN, "class-descriptions.csv": "/m/01,Dog\n/m/02\n"},
            "1 values.*class-descriptions.csv:2",
        ),
    }
)
