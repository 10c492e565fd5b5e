from __future__ import annotations

import json
from typing import Any

import pytest
from annotation_folder import AnnotationFolder, boxes_of
from cases import cases

from pipeline.data.formats.annotation_files import AnnotationFiles
from pipeline.errors import DataError

CAT = ("汽车", 1, 2, 10, 20)
XML = """<annotation><filename>a.jpg</filename><object><name>{}</name>
<bndbox><xmin>1.0</xmin><ymin>2.0</ymin><xmax>11.0</xmax><ymax>22.0</ymax></bndbox></object></annotation>"""
CVAT = """<annotations><image name="a.jpg" width="100" height="50">
<box label="汽车" xtl="1" ytl="2" xbr="11" ybr="22"/></image></annotations>"""
INSTANCES = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 50}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20]}],
    "categories": [{"id": 1, "name": "汽车"}],
}
SHAPES = [{"label": "汽车", "points": [[1, 2], [11, 22]], "shape_type": "rectangle"}]
FORMATS = {
    "coco": {"a.json": json.dumps(INSTANCES, ensure_ascii=False)},
    "voc": {"a.xml": XML.format("汽车")},
    "yolo": {"a.txt": "0 0.06 0.24 0.1 0.4\n", "data.yaml": "names: [汽车]\n"},
    "labelme": {"a.json": json.dumps({"imagePath": "a.jpg", "shapes": SHAPES}, ensure_ascii=False)},
    "cvat": {"a.xml": CVAT},
    "csv": {"a.csv": "filename,class,xmin,ymin,xmax,ymax\na.jpg,汽车,1,2,11,22\n"},
}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("format_", FORMATS)
def test_a_byte_order_mark_tells_the_encoding(annotation_folder: AnnotationFolder, format_: str, encoding: str) -> None:
    """As editors and PowerShell on Windows write it."""
    mark = "" if encoding == "utf-8-sig" else "\ufeff"
    files = {name: f"{mark}{content}".encode(encoding) for name, content in FORMATS[format_].items()}
    assert annotation_folder.boxes(files, "a.jpg") == {"a.jpg": [CAT]}


@cases(
    "encoding, declared, name",
    {
        "GB2312": ("gb2312", "GB2312", "汽车"),
        "GBK called GB2312": ("gbk", "gb2312", "貓"),
        "Big5": ("big5", "Big5", "貓"),
        "Shift_JIS": ("shift_jis", "Shift_JIS", "猫"),
        "EUC-KR": ("euc_kr", "EUC-KR", "고양이"),
        "Windows-1251": ("cp1251", "windows-1251", "кот"),
        "Latin-1": ("latin-1", "ISO-8859-1", "Küh"),
        "UTF-16": ("utf-16", "UTF-16", "汽车"),
    },
)
def test_xml_is_read_as_it_declares(
    annotation_folder: AnnotationFolder, encoding: str, declared: str, name: str
) -> None:
    content = f'<?xml version="1.0" encoding="{declared}"?>{XML.format(name)}'
    dataset = annotation_folder.dataset({"a.xml": content.encode(encoding)}, "a.jpg")
    assert boxes_of(dataset) == {"a.jpg": [(name, *CAT[1:])]}


ICONV = "cannot be read.*do: .*iconv -f GB18030 -t UTF-8"


@cases(
    "name, content, said",
    {
        "JSON": ("a.json", FORMATS["coco"]["a.json"].encode("gbk"), ICONV),
        "CSV": ("a.csv", FORMATS["csv"]["a.csv"].encode("gbk"), ICONV),
        "YAML": ("data.yaml", FORMATS["yolo"]["data.yaml"].encode("gbk"), ICONV),
        "XML that declares nothing": ("a.xml", FORMATS["voc"]["a.xml"].encode("gbk"), ICONV),
        "XML that declares UTF-8": (
            "a.xml",
            f'<?xml version="1.0" encoding="utf-8"?>{XML.format("汽车")}'.encode("gbk"),
            ICONV,
        ),
        "half a file of UTF-16": ("a.csv", FORMATS["csv"]["a.csv"].encode("utf-16")[:-1], "not UTF-16 text"),
        "XML in an unknown encoding": (
            "a.xml",
            b'<?xml version="1.0" encoding="x-klingon"?><annotation/>',
            "not XML: unknown encoding: x-klingon",
        ),
        "half an XML file": ("a.xml", FORMATS["voc"]["a.xml"].encode()[:-9], "not XML.*do: .*get the whole file"),
        "half a JSON file": ("a.json", FORMATS["coco"]["a.json"].encode()[:-2], "not JSON.*do: .*get the whole file"),
        "entities": (
            "a.xml",
            b'<!DOCTYPE annotation [<!ENTITY a "b">]><annotation>&a;</annotation>',
            "declares entities, which annotations do not need",
        ),
    },
)
def test_what_is_no_text_is_refused(annotation_folder: AnnotationFolder, name: str, content: bytes, said: str) -> None:
    annotation_folder.image("a.jpg")
    annotation_folder.write({"a.txt": FORMATS["yolo"]["a.txt"]} if name == "data.yaml" else {})
    annotation_folder.write({name: content})
    with pytest.raises(DataError, match=f"(?s){said}") as error:
        annotation_folder.read()
    assert f"where:    {name}" in str(error.value)


@cases(
    "content, is_one",
    {
        "version 6": ("/m/011k07,Tortoise\n/m/012074,Container\n", True),
        "version 7, with a header": ("LabelName,DisplayName\n/m/011k07,Tortoise\n", True),
        "a name with commas": ('/m/0cyhj_,"Orange, or not"\n', True),
        "boxes": ("ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/0cyhj_,0,1,0,1\n", False),
        "labels of images": ("/x/a.jpg,cat\n", False),
    },
)
def test_names_of_classes_are_told_by_content(annotation_folder: AnnotationFolder, content: Any, is_one: bool) -> None:
    annotation_folder.write({"any.csv": content})
    found = AnnotationFiles.of(annotation_folder.folder).class_descriptions()
    assert found == (("any.csv",) if is_one else ())
