"""Folders in and out of the store, the same over every backend."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from folders import contents_of, fill
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError, IntegrityError, MissingError, StoreError, UsageError
from pipeline.runtime.store.artifact_store import Artifact, Store, digest_of


@pytest.fixture
def store(store_url: str) -> Store:
    """An empty one."""
    return Store(store_url)


def objects(store: Store) -> list[str]:
    return [info.key for info in store.files.find("objects")]


TWO = {"a.txt": b"one", "deep/er/b.bin": bytes(range(256)) * 10}


def test_what_goes_in_comes_out(store: Store, tmp_path: Path) -> None:
    artifact = store.put("things", fill(tmp_path / "in", TWO), "run/step/1")
    assert (artifact.files, artifact.size, artifact.made_by) == (2, 2563, "run/step/1")
    assert artifact.url == f"{store.url}/artifacts/things/{artifact.digest}"
    assert store.has(artifact)
    out = tmp_path / "out" / "here"
    assert contents_of(store.get(artifact, out)) == TWO
    (out / "more.txt").write_text("of my own")
    (out / "a.txt").write_bytes(b"mine")
    assert contents_of(store.get(artifact, out)) == TWO, "the folder is replaced, and its files are not the store's"
    other = Store(str(tmp_path / "other"))
    assert not other.has(artifact)
    with pytest.raises(MissingError, match="--force"):
        other.get(artifact, tmp_path / "out")


def test_some_files_can_be_had_alone(store: Store, tmp_path: Path) -> None:
    artifact = store.put("things", fill(tmp_path / "in", TWO))
    store.files.remove(next(key for key in objects(store) if hashlib.sha256(TWO["a.txt"]).hexdigest() in key), 1e12)
    only = {"deep/er/b.bin", "no such file"}
    assert contents_of(store.get(artifact, tmp_path / "out", only=only)) == {"deep/er/b.bin": TWO["deep/er/b.bin"]}
    assert contents_of(store.get(artifact, tmp_path / "out", only=set())) == {}


def test_the_version_is_the_content_which_is_kept_once(store: Store, tmp_path: Path) -> None:
    first = store.put("things", fill(tmp_path / "one", TWO))
    assert store.put("things", fill(tmp_path / "two", TWO)) == first
    assert store.put("others", tmp_path / "two").digest == first.digest
    assert len(objects(store)) == 2
    assert store.put("things", fill(tmp_path / "two", {"a.txt": b"other"})).digest != first.digest
    renamed = store.put("things", fill(tmp_path / "three", {"c.txt": TWO["a.txt"], "deep/er/b.bin": b"x"}))
    assert renamed.digest != first.digest


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        pytest.param(lambda folder: None, DataError, "empty folder", id="empty"),
        pytest.param(lambda folder: (folder / "sub").mkdir(), DataError, "empty folder", id="folders only"),
        pytest.param(lambda folder: (folder / "l").symlink_to("/etc/hostname"), DataError, "no links", id="link"),
        pytest.param(lambda folder: os.mkfifo(folder / "pipe"), DataError, "special", id="pipe"),
        pytest.param(lambda folder: folder.rmdir(), MissingError, "no folder", id="absent"),
    ],
)
def test_what_cannot_be_stored_is_refused(
    store: Store, tmp_path: Path, make: Callable[[Path], object], kind: type[Exception], says: str
) -> None:
    (tmp_path / "in").mkdir()
    make(tmp_path / "in")
    with pytest.raises(kind, match=says):
        store.put("things", tmp_path / "in")
    assert store.files.names("artifacts/things") == []


@pytest.mark.parametrize("name", ["", "..", "../up", "a/b", "a b", "ä"])
def test_an_artifact_has_a_plain_name(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        store.put(name, fill(tmp_path / "in", TWO))


def damage(store: Store, key: str, content: bytes | None) -> None:
    """Replace a stored file's bytes, or remove it, behind the store's back."""
    store.files.remove(key, float("inf"))
    if content is not None:
        store.files.create(key, content)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda content: bytes([content[0] ^ 1]) + content[1:], "not what was recorded", id="flipped bit"),
        pytest.param(lambda content: content[:-1], "not what was recorded", id="cut"),
        pytest.param(lambda content: content + b"x", "not what was recorded", id="grown"),
        pytest.param(lambda content: None, "is gone", id="missing"),
    ],
)
def test_a_damaged_file_is_named_and_made_anew_by_the_next_put(
    store: Store, tmp_path: Path, change: Callable[[bytes], bytes | None], says: str
) -> None:
    artifact = store.put("things", fill(tmp_path / "in", TWO), "run/maker/1")
    [key] = [info.key for info in store.files.find("objects") if info.size == 2560]
    damage(store, key, change(TWO["deep/er/b.bin"]))
    with pytest.raises(IntegrityError, match=says) as caught:
        store.get(artifact, tmp_path / "out" / "x")
    assert "deep/er/b.bin of things" in str(caught.value)
    assert key.rsplit("/", 1)[1] in str(caught.value)
    assert "run maker again with --force" in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == [], "get leaves nothing half"
    assert store.put("things", tmp_path / "in") == replace(artifact, made_by="")
    assert contents_of(store.get(artifact, tmp_path / "out" / "x")) == TWO


def test_a_damaged_index_or_cut_object_is_made_anew_by_the_next_put(store: Store, tmp_path: Path) -> None:
    artifact = store.put("things", fill(tmp_path / "in", TWO))
    key = f"artifacts/things/{artifact.digest}"
    damage(store, key, store.files.read(key).replace(b"a.txt", b"b.txt"))
    damage(store, next(info.key for info in store.files.find("objects") if info.size == 2560), b"short")
    with pytest.raises(IntegrityError, match="the index of things"):
        store.get(artifact, tmp_path / "out")
    store.put("things", tmp_path / "in")
    assert contents_of(store.get(artifact, tmp_path / "out")) == TWO


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names, st.binary(max_size=50), min_size=1, max_size=4), names)
def test_any_name_and_content_comes_back(store: Store, contents: dict[str, bytes], folder: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        box = Path(place)
        nested = {f"{folder}/{name}": content for name, content in contents.items()}
        artifact = store.put("things", fill(box / "in", nested))
        assert contents_of(store.get(artifact, box / "out")) == nested
        assert Store(store.url).has(artifact)


hostile = st.one_of(
    names,
    st.sampled_from(
        ["..", ".", "", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", "C:\\x", "a\0b", "x" * 300]
    ),
    st.lists(st.sampled_from(["..", ".", "", "a", "b", "ü", " "]), max_size=4).map("/".join),
)
entries = st.fixed_dictionaries(
    {
        "path": hostile | st.integers(),
        "size": st.integers(-1, 3) | st.text(max_size=2),
        "sha256": st.sampled_from([hashlib.sha256(b"x").hexdigest(), "../" * 3, "x"]),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(entries, max_size=3))
def test_no_index_that_someone_made_writes_outside_its_folder(local: Store, listed: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        box = Path(place)
        local.put("things", fill(box / "in", {"a": b"x"}))
        index = json.dumps({"files": listed}).encode()
        digest = hashlib.sha256(index).hexdigest()
        local.files.create(f"artifacts/things/{digest}", index)
        before = sorted(path for path in box.rglob("*"))
        with suppress(IntegrityError, StoreError):
            local.get(Artifact("things", "", digest, 0, 0), box / "deep" / "out")
        beyond = [path for path in box.rglob("*") if path not in before and not path.is_relative_to(box / "deep")]
        assert beyond == []
        if (box / "deep" / "out").exists():
            assert {entry["path"] for entry in listed} == set(contents_of(box / "deep" / "out"))


def test_a_changing_file_is_not_stored(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "in", {"a": b"before"})
    upload = type(store.files).upload

    def late(self: object, key: str, source: Path, sha256: str) -> None:
        source.write_bytes(b"after!")
        upload(self, key, source, sha256)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store.files), "upload", late)
    with pytest.raises(IntegrityError, match="changed while"):
        store.put("things", folder)
    assert store.files.names("artifacts/things") == []


# --- local disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def local(tmp_path: Path) -> Store:
    """On disk."""
    return Store(str(tmp_path / "the store"))


def test_inputs_are_read_only_links_that_cannot_change_the_store_unnoticed(local: Store, tmp_path: Path) -> None:
    artifact = local.put("things", fill(tmp_path / "in", {"a": b"before"}))
    path = local.get(artifact, tmp_path / "out", link=True) / "a"
    assert path.stat().st_mode & 0o777 == 0o444
    assert path.samefile(local.files.location(objects(local)[0]))
    assert not path.samefile(tmp_path / "in" / "a"), "what the step goes on writing is not the store's"
    path.chmod(0o644)
    path.write_bytes(b"after!")
    with pytest.raises(IntegrityError, match="a of things"):
        local.get(artifact, tmp_path / "again")


def test_a_file_is_copied_where_it_cannot_be_linked(
    local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = local.put("things", fill(tmp_path / "in", TWO))

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert contents_of(local.get(artifact, tmp_path / "out", link=True)) == TWO


# --- what is wrong with it -------------------------------------------------------------------------------------------


def test_a_check_names_what_is_wrong_and_takes_it_out_of_use(store: Store, tmp_path: Path) -> None:
    contents = {"a": b"first", "b/c": b"second", "d": b"third"}
    artifact = store.put("things", fill(tmp_path / "in", contents))
    assert store.check(artifact) == []
    keys = {store.files.read(key): key for key in objects(store)}
    damage(store, keys[b"second"], b"sec0nd")
    damage(store, keys[b"third"], None)
    passed: set[str] = set()
    assert store.check(artifact, passed) == ["b/c", "d"]
    assert passed == {hashlib.sha256(b"first").hexdigest()}
    assert not store.files.exists(keys[b"second"])
    store.put("things", tmp_path / "in")
    assert store.check(artifact) == []
    damage(store, f"artifacts/things/{artifact.digest}", b"{}")
    assert "the index" in store.check(artifact)[0]
    damage(store, f"artifacts/things/{artifact.digest}", None)
    assert "not in the store" in store.check(artifact)[0]


def test_a_file_is_read_by_its_digest(store: Store, tmp_path: Path) -> None:
    store.put("things", fill(tmp_path / "in", {"a": b"first", "b": b"second"}))
    digest = hashlib.sha256(b"first").hexdigest()
    assert store.read(digest) == b"first"
    for content in (b"f1rst", None):
        damage(store, f"objects/{digest[:2]}/{digest}", content)
        with pytest.raises(IntegrityError, match="a stored file is damaged or missing"):
            store.read(digest)


def test_the_digest_of_a_folder_is_that_of_its_artifact(store: Store, tmp_path: Path) -> None:
    artifact = store.put("things", fill(tmp_path / "in", {"a": b"first", "b/c": b"second"}))
    assert digest_of(store.files_of(store.get(artifact, tmp_path / "out"), "things")) == artifact.digest


# --- places ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}", "local://{}"])
def test_a_place_can_be_named_as_path_or_url_and_be_moved(tmp_path: Path, form: str) -> None:
    place = tmp_path / "a b%20ü#1"
    artifact = Store(str(tmp_path / "first")).put("things", fill(tmp_path / "in", TWO))
    (tmp_path / "first").rename(place)
    named = form.format(place if form == "{}" else place.as_uri().removeprefix("file://"))
    assert Store(named).url == place.as_uri() == Store(Store(named).url).url
    assert contents_of(Store(named).get(artifact, tmp_path / "out")) == TWO


@pytest.mark.parametrize("url", ["nosuch://bucket/x", "abfs://container/x"])
def test_an_unknown_kind_of_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="cannot be reached"):
        Store(url)


@pytest.mark.parametrize("place", ["/proc/store", "{box}/file", "{box}/file/store"])
def test_a_place_whose_folder_cannot_be_made_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(place.format(box=tmp_path))
    with pytest.raises(StoreError, match="store could not make a folder") as caught:
        store.files.create("runs/x", b"record")
    assert str(caught.value.where).startswith(place.format(box=tmp_path))
    assert "`store` in the config" in str(caught.value)
