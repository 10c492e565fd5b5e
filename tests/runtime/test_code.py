"""Which code ran."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StepError
from pipeline.runtime import code
from pipeline.runtime.code import (
    changed_files,
    code_digest,
    code_state,
    environment,
    imported_modules,
    refuse_dirty,
    required_versions,
    tag,
)
from pipeline.runtime.notebook import read_steps

ROOT = Path(__file__).parents[2]


def test_a_clean_checkout(toy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commit = toy.commit()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as inside a hook
    state = code_state(toy.root)
    assert (state.commit, state.dirty, state.diff, state.untracked) == (commit, False, "", {})
    refuse_dirty(toy.root, state)
    assert code_state(toy.root / "steps").commit == "", "a folder inside a checkout is none"
    asked, calls = code.git, []
    monkeypatch.setattr(code, "git", lambda *a, **k: (calls.append(a), asked(*a, **k))[1])
    assert not code_state(toy.root).dirty
    assert len(calls) == 1, "a clean tree takes one call of git"


def test_what_differs_is_recorded(toy: Any) -> None:
    toy.commit()
    (toy.root / "configs" / "demo.yaml").write_text("name: changed\n")
    (toy.root / "with space.txt").write_text("new")
    (toy.root / "ü.txt").write_text("new")
    (toy.root / ".store").mkdir()
    (toy.root / ".store" / "ignored").write_text("x")
    state = code_state(toy.root)
    assert state.dirty
    assert "+name: changed" in state.diff
    assert "-name: toy" in state.diff
    assert set(state.untracked) == {"with space.txt", "ü.txt"}
    assert state.untracked["ü.txt"] == state.untracked["with space.txt"] == code.sha256_of(toy.root / "ü.txt")
    assert changed_files(state) == ["configs/demo.yaml", "with space.txt", "ü.txt"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda toy: (toy.root / "step.dev.py").unlink(), id="removed"),
        pytest.param(lambda toy: (toy.root / "step.dev.py").chmod(0o755), id="mode"),
        pytest.param(lambda toy: toy.git("mv", "step.dev.py", "step.x.py"), id="renamed and staged"),
        pytest.param(lambda toy: (toy.root / "step.dev.py").write_bytes(b"\xff\xfe\x00binary"), id="binary"),
        pytest.param(lambda toy: (toy.root / "step.dev.py").write_bytes(b"# caf\xe9\n"), id="latin 1"),
        pytest.param(lambda toy: toy.git("config", "diff.noprefix", "true") or edit(toy), id="git without prefixes"),
        pytest.param(lambda toy: toy.git("config", "color.ui", "always") or edit(toy), id="git with colours"),
        pytest.param(lambda toy: toy.git("config", "diff.external", "true") or edit(toy), id="another diff"),
    ],
)
def test_any_change_makes_it_dirty_and_prod_refuses(toy: Any, change: Any) -> None:
    toy.commit()
    change(toy)
    state = code_state(toy.root)
    assert state.dirty
    assert any(name.startswith("step.") for name in changed_files(state))
    with pytest.raises(StepError, match=r"prod refuses a dirty tree: 1 files? differ") as caught:
        refuse_dirty(toy.root, state)
    assert "step." in str(caught.value)


def edit(toy: Any) -> None:
    (toy.root / "step.dev.py").write_text("# other\n")


def no_git_command(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.commit()
    monkeypatch.setenv("PATH", "")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda toy, _: None, id="no checkout"),
        pytest.param(lambda toy, _: toy.git("init", "-q"), id="no commit"),
        pytest.param(lambda toy, _: toy.commit() and shutil.rmtree(toy.root / ".git"), id="no longer a checkout"),
        pytest.param(no_git_command, id="no git"),
    ],
)
def test_without_a_commit_the_code_is_unknown_and_prod_refuses(
    toy: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(toy, monkeypatch)
    state = code_state(toy.root)
    assert (state.commit, state.dirty) == ("", True)
    with pytest.raises(StepError, match="prod needs a commit"):
        refuse_dirty(toy.root, state)


def test_what_was_changed_and_changed_back_is_clean_and_new_files_of_any_name_are_not(toy: Any) -> None:
    toy.commit()
    script = toy.root / "step.dev.py"
    before = script.read_text()
    script.write_text("# other\n")
    toy.git("add", "step.dev.py")
    script.write_text(before)
    assert not code_state(toy.root).dirty, "the index is no part of what runs"
    toy.git("reset", "-q")
    toy.git("config", "status.showUntrackedFiles", "no")
    (toy.root / "new\nline").write_text("x")
    (toy.root / "folder").mkdir()
    (toy.root / "folder" / "1 M. within").write_text("x")
    assert set(code_state(toy.root).untracked) == {"new\nline", "folder/1 M. within"}


def test_a_checkout_whose_files_lie_elsewhere_is_none(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    toy.commit()
    toy.git("config", "core.worktree", str(tmp_path_factory.mktemp("elsewhere")))
    assert (code_state(toy.root).commit, code_state(toy.root).dirty) == ("", True)


def test_a_diff_that_cannot_be_had_is_no_sign_of_a_clean_tree(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.commit()
    edit(toy)
    asked = code.git
    monkeypatch.setattr(code, "git", lambda root, name, *a, **k: None if name == "diff" else asked(root, name, *a, **k))
    assert code_state(toy.root).dirty


def test_a_commit_is_tagged_once_and_no_tag_is_moved(toy: Any) -> None:
    first = toy.commit()
    toy.git("config", "tag.gpgSign", "true")
    assert [tag(toy.root, first, "run1", step) for step in ("first", "second")] == ["run1", "run1"]
    later = []
    for n in range(3):
        toy.git("commit", "-q", "--allow-empty", "-m", str(n))
        later.append(toy.git("rev-parse", "HEAD").strip())
    names = [tag(toy.root, commit, "run1", "second") for commit in later]
    assert names == ["run1-second", f"run1-second-{later[1][:12]}", f"run1-second-{later[2][:12]}"]
    assert [tag(toy.root, commit, "run1", "second") for commit in later] == names
    assert tag(toy.root, later[0], "run1", "third") == "run1-third"
    assert toy.git("rev-parse", "run1", *names).split() == [first, *later]
    with pytest.raises(StepError, match="git tag run2"):
        tag(toy.root, "f" * 40, "run2", "first")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a few modules in the place of this one."""
    files = {
        "__init__.py": "",
        "errors.py": "",
        "runtime/step.py": "from pipeline.runtime.store.artifact_store import Store",
        "runtime/store/artifact_store.py": "",
        "data/__init__.py": "",
        "data/coco.py": "from pipeline.errors import DataError\nfrom pipeline.data import boxes",
        "data/boxes.py": "def area():\n    from .shapes import side",
        "data/shapes.py": "",
        "data/unrelated.py": "",
        "serving/__init__.py": "",
        "serving/card.py": "",
        "report/__init__.py": "",
        "report/page.py": "",
        "report/page.html.j2": "",
        "report/__pycache__/page.pyc": "",
    }
    for name, content in files.items():
        (tmp_path / "pipeline" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pipeline" / name).write_text(content)
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "pipeline")
    return tmp_path / "pipeline"


def digest() -> str:
    source = """
from pipeline.data.coco import read_coco
from pipeline.report import page
from pipeline.runtime.step import Step
"""
    return code_digest(tuple(imported_modules(ast.parse(source))))


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        pytest.param("data/coco.py", True, id="imported"),
        pytest.param("data/boxes.py", True, id="imported by an import"),
        pytest.param("data/shapes.py", True, id="imported relatively, inside a function"),
        pytest.param("data/__init__.py", True, id="its package"),
        pytest.param("errors.py", True, id="shared"),
        pytest.param("report/page.html.j2", True, id="template beside it"),
        pytest.param("data/unrelated.py", False, id="unrelated"),
        pytest.param("serving/card.py", False, id="another package"),
        pytest.param("runtime/step.py", False, id="runtime"),
        pytest.param("runtime/store/artifact_store.py", False, id="runtime below"),
        pytest.param("report/__pycache__/page.pyc", False, id="compiled"),
    ],
)
def test_the_digest_is_of_what_a_step_uses(package: Path, changed: str, counts: bool) -> None:
    before = digest()
    (package / changed).write_text("# changed\n" + (package / changed).read_text())
    assert (digest() != before) is counts


def test_the_digest_follows_what_is_edited_while_a_run_goes_on(package: Path) -> None:
    before = digest()
    (package / "data" / "shapes.py").write_text("from pipeline.data import unrelated")
    imported = digest()
    (package / "data" / "unrelated.py").write_text("x = 1")
    changed = digest()
    (package / "data" / "shapes.py").write_text('CARRIES = ("pipeline.serving",)')
    carried = digest()
    (package / "serving" / "new.py").write_text("")
    packed = digest()
    (package / "data" / "boxes.py").write_text("x = 1")
    assert len({before, imported, changed, carried, packed, digest()}) == 6


def test_of_the_real_package_a_step_uses_the_domain_only_with_templates_and_what_it_packs() -> None:
    steps = read_steps(ROOT / "steps")
    closures = {name: set(code._closure(step.imports)) for name, step in steps.items()}
    for name, closure in closures.items():
        folders = {path.relative_to(code.PACKAGE).parts[0] for path in closure}
        allowed = {"__init__.py", "errors.py", "files.py", "limits.py", "data", "detection", "evaluation", "serving"}
        assert closure, name
        assert folders <= allowed, name
    assert code.PACKAGE / "evaluation" / "report.html.j2" in closures["model_eval"]
    assert {*(code.PACKAGE / "serving").glob("*.py"), code.PACKAGE / "errors.py"} <= closures["model_pack"]
    assert code.PACKAGE / "evaluation" / "quality_report.py" not in closures["model_pack"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pipeline.data.coco as c", {"pipeline.data.coco"}),
        ("from pipeline.data import coco", {"pipeline.data", "pipeline.data.coco"}),
        ("from . import coco", {"pipeline.data", "pipeline.data.coco"}),
        ("from ..errors import DataError", {"pipeline.errors", "pipeline.errors.DataError"}),
        ("import pipeline_other, numpy", set()),
        (
            "if TYPE_CHECKING:\n    import pipeline.runtime.store.artifact_store",
            {"pipeline.runtime.store.artifact_store"},
        ),
    ],
)
def test_imports_are_read(source: str, found: set[str]) -> None:
    assert imported_modules(ast.parse(source), "pipeline.data") == found


def test_versions_are_what_importlib_reads() -> None:
    required = metadata.requires("detection-pipeline") or []
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in required if "extra ==" not in text]
    assert required_versions("detection-pipeline") == {name: metadata.version(name) for name in sorted(names)}


def distribution(place: Path, name: str, version: str, *lines: str) -> None:
    place.mkdir(parents=True)
    fields = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, "", "Version: of the README"]
    (place / ("PKG-INFO" if place.suffix == ".egg-info" else "METADATA")).write_text("\n".join(fields))


def test_names_are_normalised_and_the_first_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    required = ("Some.Dotted-name>=2", "old-egg", "gone (>=1)", "twice ; python_version > '3'", "extra; extra == 'x'")
    one, two = tmp_path / "one", tmp_path / "two"
    distribution(one / "asker-1.dist-info", "asker", "1", *(f"Requires-Dist: {text}" for text in required))
    distribution(one / "some_dotted_name-2.0+cpu.dist-info", "some_dotted_name", "2.0+cpu")
    distribution(one / "old_egg-3.egg-info", "old_egg", "3")
    distribution(one / "twice-4.dist-info", "twice", "4")
    distribution(two / "twice-5.dist-info", "twice", "5")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "absent"), str(one), str(two)])
    versions = {"Some.Dotted-name": "2.0+cpu", "gone": "not installed", "old-egg": "3", "twice": "4"}
    assert required_versions("asker") == versions
    assert required_versions("nobody") == {}


def test_the_environment_names_versions_and_device() -> None:
    found = environment()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["torch"].startswith("2.")
    assert {"papermill", "mmdet", "bentoml", "platform", "machine"} <= set(found)
    assert "pytest" not in found, "a package that only tests need changes no result"
    assert "CPU" in found["device"] or "NVIDIA" in found["device"]
