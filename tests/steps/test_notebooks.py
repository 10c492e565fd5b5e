"""What holds of every notebook, read from the files."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cases import cases

from pipeline.data.formats.reading import FORMATS
from pipeline.detection.families import detectors
from pipeline.detection.hyperparameters import CHOICES
from pipeline.errors import UsageError
from pipeline.runtime.notebook import read_notebook, read_steps
from pipeline.runtime.project import Config, read_config
from pipeline.runtime.runner import Project
from pipeline.serving.runtimes import PRECISIONS, RUNTIMES

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "steps").glob("*.ipynb"))
TABLE = {  # the entity names are the users'
    "data_load": ([], ["coco_datasets_images", "coco_datasets_annotations", "yolox_pth_pretrain_weights"]),
    "data_prep": (
        ["coco_datasets_images", "coco_datasets_annotations"],
        ["coco_train_dataset", "coco_eval_dataset", "coco_test_dataset", "data_report"],
    ),
    "model_train": (
        ["coco_train_dataset", "coco_eval_dataset", "yolox_pth_pretrain_weights"],
        ["obj_detect_inference_files"],
    ),
    "model_pack": (
        ["obj_detect_inference_files", "coco_train_dataset", "coco_eval_dataset"],
        ["bento_service", "bento_service_forms"],
    ),
    "model_eval": (
        [
            "coco_test_dataset",
            "coco_train_dataset",
            "bento_service",
            "bento_service_forms",
            "obj_detect_inference_files",
        ],
        ["coco_inference_result_dataset", "model_quality_report", "delivered_forms"],
    ),
}


def test_the_steps_are_the_five_in_their_order() -> None:
    steps = read_steps(ROOT / "steps")
    assert {name: (list(step.reads), list(step.writes)) for name, step in steps.items()} == TABLE
    assert list(steps) == list(TABLE)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_thin_and_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) <= 13
    for cell in code:
        source = "".join(cell["source"])
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        if "parameters" in cell["metadata"].get("tags", []):  # a line for each and nothing else, however many
            assert all(isinstance(node, ast.AnnAssign) for node in ast.parse(source).body)
            lines = [line for line in source.splitlines() if not line.startswith("#")]
            assert len(lines) == len(ast.parse(source).body)
        else:
            assert len(source.splitlines()) <= 10, source
        assert not any(line.lstrip().startswith(("!", "%")) for line in source.splitlines())
        kinds = {type(node) for node in ast.walk(ast.parse(source))}
        assert not kinds & {ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda}
    assert cells[0]["cell_type"] == "markdown"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_command_names_the_config_and_one_that_runs_a_step_the_run(path: Path) -> None:
    """Otherwise it finds nothing where the config has a store or a zone of its own, or works on a newer run."""
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    commands = [command for cell in cells for command in re.findall(r'"python (?:-m|step\.)[^"]*"', cell)]
    assert len(commands) == {"data_prep": 1, "model_eval": 1}.get(path.stem, 0)
    assert [command for command in commands if "{step.config_option}" not in command] == []
    runs = [command for command in commands if command.startswith('"python step.')]
    assert [command for command in runs if "{step.run_option}" not in command] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_is_explained_and_used(path: Path) -> None:
    notebook = read_notebook(path)
    cells = json.loads(path.read_text())["cells"]
    rest = [
        "".join(c["source"])
        for c in cells
        if c["cell_type"] == "code" and "parameters" not in c["metadata"].get("tags", [])
    ]
    used = {node.id for source in rest for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    for parameter in notebook.parameters.values():
        assert parameter.help, parameter.name
        assert parameter.name in used


@pytest.mark.parametrize("mode", ["dev", "prod"])
@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_fits_the_notebooks(path: Path, mode: str) -> None:
    project = Project(ROOT, mode, read_config(path), str(path), read_steps(ROOT / "steps"))
    assert project.parameters({}).keys() == TABLE.keys()
    written = {entity for _, writes in TABLE.values() for entity in writes}
    assert project.config.deliver.keys() <= written


NEEDS_NO_DATA = {
    "no rule": ("data_prep", "actions", {"tiny-bx": "drop"}, "did you mean 'tiny-box'"),
    "no such action of a rule": ("data_prep", "actions", {"tiny-box": "repair"}, "cannot 'repair'"),
    "a class twice": ("data_prep", "classes", ["car", "car"], "the class 'car' is asked for twice"),
    "no name": ("data_prep", "rename", {"car": ""}, "the new name of a class is empty"),
    "too large shares": ("data_prep", "train_share", 0.9, "are no shares"),
    "what does not go together": ("model_pack", "precision", "bf16", "does not compute in bf16"),
    "no tile": ("model_pack", "tile", 7, "tile is 7"),
    "no limit": ("model_eval", "limits", ["mAP50 = 0.5"], "'mAP50 = 0.5' is no limit"),
    "no figure": ("model_eval", "limits", ["AP[*] >= 0.1", "map50 >= 0.5"], "did you mean 'mAP50'?"),
    "no figure of a class": ("model_eval", "limits", ["mAP[car] >= 0.5"], "one of AP, AP50, AR100"),
    "no model": ("model_eval", "limits", ["mAP >= earlyer"], "did you mean 'earlier'?"),
}


@pytest.mark.parametrize("key", ["parameters", "prod"])
@cases("step, name, value, says", NEEDS_NO_DATA)
def test_what_needs_no_data_is_refused_before_anything_runs(
    key: str, step: str, name: str, value: Any, says: str
) -> None:
    project = Project(ROOT, "dev", Config("x", **{key: {step: {name: value}}}), "x", read_steps(ROOT / "steps"))
    with pytest.raises(UsageError) as caught:
        project.parameters({})
    assert says in str(caught.value)
    assert f"{step}, " in str(caught.value)


GOOD = """\
import sys
from pathlib import Path
from pipeline.runtime.notebook import read_steps
from pipeline.runtime.project import Config, Project
values = {"data_prep": {"train_share": 0.6, "classes": ["a"]}, "model_pack": {"runtime": "openvino"}}
values["model_pack"]["tile"] = 640
values["model_eval"] = {"limits": ["mAP >= 0.5"]}
Project(Path(), "dev", Config("x", parameters=values), "x", read_steps(Path("steps"))).parameters({})
print(*{"torch", "numpy", "cv2", "matplotlib"} & {*sys.modules})
"""


def test_the_checks_of_common_parameters_import_nothing_heavy() -> None:
    """Every command makes them."""
    done = subprocess.run([sys.executable, "-c", GOOD], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_the_choices_in_the_notebooks_are_those_of_the_domain() -> None:
    steps = read_steps(ROOT / "steps")
    expected = {
        ("data_load", "annotations_format"): FORMATS,
        ("model_train", "detector"): detectors(),
        **{("model_train", name): choices for name, choices in CHOICES.items()},
        ("model_pack", "runtime"): tuple(RUNTIMES),
        ("model_pack", "precision"): PRECISIONS,
    }
    for (step, name), choices in expected.items():
        assert steps[step].parameters[name].help.endswith(f"one of {', '.join(choices)}"), name
