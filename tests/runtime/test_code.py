"""The digest of the code that a step uses, and the environment."""

from __future__ import annotations

import ast
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from cases import cases

from pipeline.runtime import code
from pipeline.runtime.code import code_digest, environment, hardware, imported_modules, required_versions
from pipeline.runtime.notebook import read_steps

ROOT = Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a few modules in the place of this one."""
    files = {
        **{f"{folder}__init__.py": "" for folder in ("", "data/", "serving/", "report/")},
        **dict.fromkeys(("errors.py", "runtime/store/artifact_store.py", "data/unrelated.py", "serving/card.py"), ""),
        **{f"report/{name}": "" for name in ("page.py", "table.py", "page.html.j2", "__pycache__/page.pyc")},
        "runtime/step.py": "from pipeline.runtime.store.artifact_store import Store",
        "data/coco.py": "from pipeline.errors import DataError\nimport pipeline_other, pipeline.data.boxes as b",
        "data/boxes.py": "def area():\n    from .shapes import side",
        "data/shapes.py": "if TYPE_CHECKING:\n    from ..report.table import Table",
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
        pytest.param("report/table.py", True, id="imported for its types, from the folder above"),
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
        allowed = {"__init__.py", "errors.py", "files.py"}
        allowed |= {"client", "data", "detection", "evaluation", "metrics", "serving"}
        assert closure, name
        assert folders <= allowed, name
    assert code.PACKAGE / "evaluation" / "report" / "report.html.j2" in closures["model_eval"]
    assert code.PACKAGE / "data" / "report" / "base.css" in closures["model_eval"]
    packed = {*(code.PACKAGE / "serving").glob("*.py"), code.PACKAGE / "serving" / "page.html"}
    assert {*packed, code.PACKAGE / "errors.py"} <= closures["model_pack"]
    assert code.PACKAGE / "evaluation" / "report" / "quality_report.py" not in closures["model_pack"]


def test_versions_are_what_importlib_reads() -> None:
    required = metadata.requires("detection-pipeline") or []
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in required if "extra ==" not in text]
    assert required_versions("detection-pipeline") == {name: metadata.version(name) for name in sorted(names)}


def distribution(place: Path, name: str, version: str, *lines: str) -> None:
    place.mkdir(parents=True)
    fields = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, "", "Version: of the README"]
    (place / "METADATA").write_text("\n".join(fields))


def test_names_are_normalised_and_the_first_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    required = ("Some.Dotted-name>=2", "gone (>=1)", "twice ; python_version > '3'", "extra; extra == 'x'")
    one, two = tmp_path / "one", tmp_path / "two"
    distribution(one / "asker-1.dist-info", "asker", "1", *(f"Requires-Dist: {text}" for text in required))
    distribution(one / "some_dotted_name-2.0+cpu.dist-info", "some_dotted_name", "2.0+cpu")
    distribution(one / "twice-4.dist-info", "twice", "4")
    distribution(two / "twice-5.dist-info", "twice", "5")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "absent"), str(one), str(two)])
    versions = {"Some.Dotted-name": "2.0+cpu", "gone": "not installed", "twice": "4"}
    assert required_versions("asker") == versions
    assert required_versions("nobody") == {}


def test_the_environment_names_versions_and_device() -> None:
    found = environment()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["torch"].startswith("2.")
    assert {"papermill", "mmdet", "bentoml", "platform", "machine"} <= set(found)
    assert "pytest" not in found, "a package that only tests need changes no result"
    assert "CPU" in found["device"] or "NVIDIA" in found["device"]


@cases(
    "content, told",
    {
        "x86": (
            "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nflags\t\t: fpu smep avx2 avx\n\n"
            "processor\t: 1\nmodel name\t: another\n",
            "AMD EPYC, cpu family 25, model 17, avx avx2",
        ),
        "arm": (
            "processor\t: 0\nFeatures\t: fp sve asimddp i8mm\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n\n",
            f"{platform.processor() or platform.machine()}, CPU implementer 0x41, CPU part 0xd40, asimddp i8mm sve",
        ),
        "none": ("", platform.processor() or platform.machine()),
    },
)
def test_a_processor_is_told_by_its_model_and_vector_instructions(
    content: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(content)
    monkeypatch.setattr(code, "CPUS", tmp_path / "cpuinfo")
    assert environment.__wrapped__()["processor"] == told


@cases(
    "recorded, told",
    {
        "a CPU": ({"processor": "VAX", "device": "CPU, 2 cores"}, "VAX"),
        "a GPU": ({"processor": "VAX", "device": "NVIDIA H200"}, "VAX; NVIDIA H200"),
        "by an earlier version": ({"machine": "x86_64", "device": "NVIDIA H200"}, ""),
    },
)
def test_the_hardware_is_that_which_computed(recorded: dict[str, str], told: str) -> None:
    assert hardware(recorded) == told
