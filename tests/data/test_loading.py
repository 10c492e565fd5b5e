from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace

import pytest

from pipeline.data.coco import read_coco, write_coco
from pipeline.data.loading import load_annotations, load_images, load_weights, read_test_list
from pipeline.errors import DataError, MissingError, UsageError


def zip_folder(folder, archive, prefix=""):
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(folder.rglob("*")):
            opened.write(path, prefix + path.relative_to(folder).as_posix())
    return archive


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def annotated(tiny, tmp_path):
    """Annotations of the tiny data set as a file, and its images loaded into a folder."""
    dataset, pictures = tiny
    write_coco(dataset, tmp_path / "source.json")
    load_images(str(pictures), tmp_path / "images", cache=tmp_path / "cache")
    options = {"images_folder": tmp_path / "images", "cache": tmp_path / "cache"}
    return dataset, tmp_path / "source.json", tmp_path / "out", options


class TestImages:
    @pytest.mark.parametrize("prefix", ["", "val2017/", "data/val2017/"])
    def test_zip_over_http(self, server, tiny, tmp_path, prefix):
        (tiny[1] / "readme.txt").write_text("not an image")
        data = zip_folder(tiny[1], tmp_path / "a.zip", prefix).read_bytes()
        url = server.serve("a.zip", data) + "?token=hunter2"
        digest = hashlib.sha256(data).hexdigest()
        loaded = load_images(url, tmp_path / "images", cache=tmp_path / "cache", sha256=digest)
        assert names(tmp_path / "images") == ["1.png", "2.png", "3.png"]
        assert (loaded.count, loaded.sha256, loaded.url) == (3, digest, f"{server.root}/a.zip")
        assert loaded.bytes == sum((tiny[1] / f"{i}.png").stat().st_size for i in (1, 2, 3))

    def test_two_folders_are_kept(self, write_picture, tmp_path):
        write_picture(tmp_path / "in/a/1.png", 9, 9)
        write_picture(tmp_path / "in/b/1.jpg", 9, 9)
        load_images(str(tmp_path / "in"), tmp_path / "images", cache=tmp_path)
        assert names(tmp_path / "images") == ["a/1.png", "b/1.jpg"]

    def test_archive_of_images_and_annotations(self, tiny, tmp_path):
        write_coco(tiny[0], tmp_path / "source/annotations/all.json")
        tiny[1].rename(tmp_path / "source/images")
        url = str(zip_folder(tmp_path / "source", tmp_path / "a.zip"))
        load_images(url, tmp_path / "images", cache=tmp_path)
        assert names(tmp_path / "images") == ["1.png", "2.png", "3.png"]
        options = {"images_folder": tmp_path / "images", "cache": tmp_path, "member": "annotations/all.json"}
        assert load_annotations(url, tmp_path / "out", **options).images == 3

    def test_users_files_are_copied_not_linked(self, tiny, tmp_path):
        load_images(f"file://{tiny[1]}", tmp_path / "images", cache=tmp_path)
        for name in names(tiny[1]):
            assert (tmp_path / "images" / name).read_bytes() == (tiny[1] / name).read_bytes()
            assert not (tmp_path / "images" / name).samefile(tiny[1] / name)

    def test_sample(self, tmp_path):
        loaded = load_images("sample://shapes?images=3&size=64", tmp_path / "images", cache=tmp_path)
        assert loaded.count == len(names(tmp_path / "images")) == 3

    def test_no_images(self, tmp_path):
        (tmp_path / "in").mkdir()
        with pytest.raises(DataError, match="no images"):
            load_images(str(tmp_path / "in"), tmp_path / "images", cache=tmp_path)

    def test_truncated_archive_leaves_nothing(self, tiny, tmp_path):
        archive = zip_folder(tiny[1], tmp_path / "a.zip")
        archive.write_bytes(archive.read_bytes()[:-100])
        with pytest.raises(DataError, match="cut off"):
            load_images(str(archive), tmp_path / "work" / "images", cache=tmp_path)
        assert names(tmp_path / "work") == []

    def test_digest_of_a_sample_is_refused(self, tmp_path):
        with pytest.raises(UsageError, match="no SHA-256"):
            load_images("sample://shapes?images=1", tmp_path / "images", cache=tmp_path, sha256="0" * 64)


class TestAnnotations:
    def test_file(self, annotated, write_picture):
        dataset, source, out, options = annotated
        write_picture(options["images_folder"] / "more.png", 9, 9)
        loaded = load_annotations(str(source), out, **options)
        assert read_coco(out / "annotations.json") == dataset
        assert (loaded.images, loaded.annotations, loaded.classes) == (3, 3, ("cat", "dog"))
        assert (loaded.unannotated_images, loaded.missing_images, loaded.test_images) == (1, 0, 0)
        assert names(out) == ["annotations.json"]
        assert read_test_list(out) == ()

    def test_archive_member(self, annotated, tmp_path):
        dataset, source, out, options = annotated
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(source, "annotations/mine.json")
        load_annotations(str(tmp_path / "a.zip"), out, member="annotations/mine.json", **options)
        assert read_coco(out / "annotations.json") == dataset
        with pytest.raises(MissingError, match=r"annotations/mine\.json"):
            load_annotations(str(tmp_path / "a.zip"), out, **options)

    def test_absent_image_is_refused(self, annotated):
        _, source, out, options = annotated
        (options["images_folder"] / "2.png").unlink()
        with pytest.raises(DataError, match=r"1 of the 3 images .* absent: 2\.png"):
            load_annotations(str(source), out, **options)

    def test_absent_image_is_dropped_when_asked(self, annotated, tmp_path):
        _, source, out, options = annotated
        (options["images_folder"] / "2.png").unlink()
        (tmp_path / "list.txt").write_text("2.png\n3.png\n")
        reserved = str(tmp_path / "list.txt")
        loaded = load_annotations(str(source), out, missing_images="drop", test_list_url=reserved, **options)
        assert (loaded.images, loaded.annotations, loaded.missing_images, loaded.test_images) == (2, 1, 1, 1)
        assert (out / "test_images.txt").read_text() == "3.png\n"

    def test_all_absent_is_refused_even_then(self, annotated):
        _, source, out, options = annotated
        for path in options["images_folder"].iterdir():
            path.unlink()
        with pytest.raises(DataError, match="3 of the 3"):
            load_annotations(str(source), out, missing_images="drop", **options)

    def test_folder_before_all_names_is_taken_away(self, annotated):
        dataset, source, out, options = annotated
        write_coco(
            replace(dataset, images=tuple(replace(each, file_name=f"val/{each.file_name}") for each in dataset.images)),
            source,
        )
        load_annotations(str(source), out, **options)
        assert read_coco(out / "annotations.json") == dataset

    def test_test_list_over_http(self, annotated, server):
        _, source, out, options = annotated
        url = server.serve("names.txt", b"\n3.png\r\n 1.png \n3.png\n")
        assert load_annotations(str(source), out, test_list_url=url, **options).test_images == 2
        assert (out / "test_images.txt").read_text() == "1.png\n3.png\n"
        assert read_test_list(out) == ("1.png", "3.png")

    @pytest.mark.parametrize(
        ("content", "problem"), [(b"4.png\n1.png", "names 1 images"), (b"\n", "empty"), (b"\xff\xfe1", "not a text")]
    )
    def test_wrong_test_list(self, annotated, tmp_path, content, problem):
        _, source, out, options = annotated
        (tmp_path / "list.txt").write_bytes(content)
        with pytest.raises(DataError, match=problem):
            load_annotations(str(source), out, test_list_url=str(tmp_path / "list.txt"), **options)

    def test_unknown_value(self, annotated):
        _, source, out, options = annotated
        with pytest.raises(UsageError, match="refuse or drop"):
            load_annotations(str(source), out, missing_images="ignore", **options)

    def test_sample_and_its_images_agree(self, tmp_path):
        url = "sample://shapes?images=4&size=64"
        load_images(url, tmp_path / "images", cache=tmp_path)
        loaded = load_annotations(url, tmp_path / "out", images_folder=tmp_path / "images", cache=tmp_path)
        assert (loaded.images, loaded.unannotated_images, loaded.url) == (4, 0, url)


class TestWeights:
    def test_none(self, tmp_path):
        assert load_weights("", tmp_path / "out", cache=tmp_path).path is None
        assert json.loads((tmp_path / "out/source.json").read_text()) == {"url": "", "sha256": "", "size": 0}
        assert names(tmp_path / "out") == ["source.json"]

    def test_over_http(self, server, tmp_path, real_data):
        data = (real_data / "yolox_nano_coco.pth").read_bytes()
        url = server.serve("a.pth", data).replace("http://", "http://me:hunter2@")
        loaded = load_weights(url, tmp_path / "out", cache=tmp_path / "cache")
        assert loaded.path.read_bytes() == data
        source = json.loads((tmp_path / "out/source.json").read_text())
        assert source == {
            "url": f"{server.root}/a.pth",
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
        }

    @pytest.mark.parametrize("content", [b"", b"<html>", b"version https://git-lfs"])
    def test_no_checkpoint(self, tmp_path, content):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(DataError, match="not a PyTorch checkpoint"):
            load_weights(str(tmp_path / "a.pth"), tmp_path / "out", cache=tmp_path)

    def test_digest_without_url(self, tmp_path):
        with pytest.raises(UsageError, match="without a URL"):
            load_weights("", tmp_path / "out", cache=tmp_path, sha256="0" * 64)
