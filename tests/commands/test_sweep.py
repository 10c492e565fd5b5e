"""A sweep: each trial's figures side by side, which of them no other beats, and on a page."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SWEEP = ("sweep", "configs/demo.yaml")
IMPORTS = "import json\nimport os\nimport time\nfrom pipeline.runtime.step import Step"
STEPS = {
    "data_prep": ("seed: int = 0  # of the split", [], ["coco_test_dataset"], "seed", {}),
    "model_train": (
        'detector: str = "small"  # which; one of small, large, huge\nrate: float = 0.1  # above 0; at most 1',
        ["coco_test_dataset"],
        ["obj_detect_inference_files"],
        "[detector, rate]",
        {"eval_mAP": "0.5 + rate / 10"},
    ),
    "model_eval": (
        "minimum: float = 0.0  # the quality gate\nimages: int = 40  # that are measured",
        ["coco_test_dataset", "obj_detect_inference_files"],
        ["coco_inference_result_dataset"],
        "found",
        {
            "mAP": "found",
            "mAP50": "found",
            "mAP_low": "found - 0.05",
            "mAP_high": "found + 0.04",
            "images": "images",
            "latency_p50_ms": "milliseconds",
            "latency_p95_ms": "2 * milliseconds",
        },
    ),
}
EVALUATE = """\
detector, rate = json.loads((step.inputs["obj_detect_inference_files"] / "made.json").read_text())
found = {"small": 0.4, "large": 0.6, "huge": 0.55}[detector] + rate / 10
milliseconds = {"small": 5.0, "large": 11.0, "huge": 30.0}[detector]"""

WAIT = """\
(step.cache / "kernel.pid").write_text(str(os.getpid()))
while size > 1 and not (step.cache / "go").exists():
    time.sleep(0.05)
(step.outputs["obj_detect_inference_files"] / "size").write_text(str(size))"""


def evaluated_project(toy: Any) -> Any:
    """A project whose steps have the entities and metrics of the real ones, and nothing else of them."""
    for name, (parameters, reads, writes, made, metrics) in STEPS.items():
        told = ", ".join(f'"{key}": {value}' for key, value in metrics.items())
        gate = ', limits={f"mAP, at least {minimum:g}": found >= minimum}' if name == "model_eval" else ""
        cells = [("md", f"# {name}"), ("", IMPORTS), ("parameters", parameters)]
        cells += [("interface", f"step = Step.open({name!r}, reads={reads}, writes={writes})")]
        cells += [("", EVALUATE)] if name == "model_eval" else []
        cells += [("", f'(step.outputs["{writes[0]}"] / "made.json").write_text(json.dumps({made}))')]
        toy.notebook(name, [*cells, ("", f"step.commit(metrics={{{told}}}{gate})")])
    (toy.root / "configs" / "demo.yaml").write_text("name: shapes\n")
    return toy


@pytest.fixture
def project(new_toy: Callable[..., Any], tmp_path: Path, in_process: None) -> Any:
    return evaluated_project(new_toy(tmp_path / "project", ()))


def test_the_table_has_the_best_first_and_marks_the_front(project: Any) -> None:
    over = ("--over=model_train.detector=small,large,huge", "--over=model_train.rate=0.1")
    outcome = project.look(*SWEEP, *over)
    assert outcome.code == 0
    *table, page, deliver = filter(None, outcome.out.splitlines())
    assert max(map(len, table)) <= 80
    runs = [row["name"] for row in project.runs()]
    assert table[:2] == ["3 trials on the same 40 test images, the best first", "in each of them model_train.rate=0.1"]
    assert [line.split() for line in table[2:6]] == [
        ["trial", "detector", "mAP", "ms", "training", "gate", "run"],
        ["*", "2", "large", "0.610", "0.56-0.65", "11.0", "0s", "passed", runs[1]],
        ["3", "huge", "0.560", "0.51-0.60", "30.0", "0s", "passed", runs[2]],
        ["*", "1", "small", "0.410", "0.36-0.45", "5.0", "0s", "passed", runs[0]],
    ]
    assert table[6].startswith("* on the Pareto front")
    assert page == f"page     {project.root}/out/dev/shapes/sweeps/detector.html"
    command = deliver.removeprefix("deliver  python step.dev.py ").split()
    assert command[-2:] == ["--earlier-than", project.runs()[0]["run"]]
    assert project.step(*command).code == 0
    assert set(project.statuses().values()) == {"reused"}
    assert project.manifest()["steps"]["model_eval"]["metrics"]["mAP"] == pytest.approx(0.61)


def test_programs_get_all_figures(project: Any) -> None:
    told = project.json(*SWEEP, "--over=model_train.detector=small,large")
    assert (told["config"], told["mode"], told["cautions"]) == ("configs/demo.yaml", "dev", [])
    assert Path(told["page"]).is_file()
    first = told["trials"][0]
    assert first["values"] == {"model_train.detector": "large"}
    assert first["run"] == project.runs()[1]["run"]
    known = {"number": 2, "map": 0.61, "map_low": 0.56, "map_high": 0.65, "latency_p50_ms": 11.0, "gate": "passed"}
    known |= {"latency_p95_ms": 22.0, "test_images": 40, "on_front": True, "problem": ""}
    assert {name: first[name] for name in known} == pytest.approx(known)


def test_the_time_of_a_training_is_that_of_the_run_that_did_it(project: Any) -> None:
    path = project.root / "steps" / "model_train.ipynb"
    path.write_text(path.read_text().replace('"step.commit', '"time.sleep(1.2)\\nstep.commit'))
    told = project.json(*SWEEP, "--over=model_eval.images=40,41")
    assert {each["train_seconds"] >= 1.2 for each in told["trials"]} == {True}
    assert project.runs()[1]["steps"]["model_train"] == "reused"


def test_a_failed_trial_and_a_missed_gate_are_rows_with_their_reasons(project: Any) -> None:
    path = project.root / "steps" / "model_train.ipynb"
    spoilt = '"assert detector != \\"huge\\", \\"too huge\\"\\nstep.commit'
    path.write_text(path.read_text().replace('"step.commit', spoilt))
    outcome = project.look(*SWEEP, "--over=model_train.detector=huge,small,large", "--over=model_eval.minimum=0.5")
    assert outcome.code == 1
    rows = [line.split() for line in outcome.out.splitlines()]
    (huge,) = [row for row in rows if row[:2] == ["1", "huge"]]
    assert huge[2:6] == ["-", "-", "-", "-"]
    (small,) = [row for row in rows if row[:3] == ["*", "2", "small"]]
    assert "failed" in small
    text = " ".join(outcome.out.split())
    assert "trial 1: model_train: too huge" in text
    assert "trial 2: model_eval: the quality gate is not passed: mAP, at least 0.5" in text


def test_without_a_measured_trial_there_is_no_page(project: Any) -> None:
    path = project.root / "steps" / "model_train.ipynb"
    path.write_text(path.read_text().replace('"step.commit', '"raise ValueError\\nstep.commit'))
    outcome = project.look(*SWEEP, "--over=model_train.detector=small,large")
    assert outcome.code == 1
    assert "page" not in outcome.out
    assert not (project.root / "out").exists()


def test_trials_on_other_test_images_are_not_ranked_with_the_others(project: Any) -> None:
    over = ("--over=data_prep.seed=0,1", "--over=model_train.detector=small,large")
    outcome = project.look(*SWEEP, *over)
    assert outcome.code == 0
    rows = [line.split() for line in outcome.out.splitlines()]
    sets = [row[-2] for row in rows if row[:1] == ["*"] and row[1].isdigit()]
    assert sets[0] == sets[1] != sets[2] == sets[3], "each set has its own front"
    assert "evaluated on 2 different test sets" in " ".join(outcome.out.split())
    page = (project.root / "out/dev/shapes/sweeps/seed-detector.html").read_text()
    assert page.count("<img") == 2
    assert "compare mAP only within a test set" in page


def test_many_parameters_stand_below_their_rows(project: Any) -> None:
    names = ["model_train.detector=small,large", "model_train.rate=0.125,0.25", "data_prep.seed=0,1"]
    outcome = project.look(*SWEEP, *(f"--over={name}" for name in names))
    lines = outcome.out.splitlines()
    assert "         detector=small, rate=0.25, seed=1" in lines
    assert max(len(line) for line in lines if not line.startswith(("page", "deliver"))) <= 80


def test_a_search_goes_by_the_eval_set_and_finds_its_trials_again(project: Any) -> None:
    over = ("--over=model_train.rate=1e-3..1", "--over=model_train.detector=small,large,huge")
    first = project.json(*SWEEP, *over, "--trials=4")["trials"]
    assert len(first) == len(project.runs()) == 4
    outcome = project.look(*SWEEP, *over, "--trials=6")
    assert outcome.code == 0
    assert outcome.log.count("has ended") == 4
    assert "trial 6 of 6" in outcome.log
    assert len(project.runs()) == 6


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_sweep_goes_on_where_it_was(
    new_toy: Callable[..., Any], tmp_path: Path, started: Callable[..., subprocess.Popen[str]], how: signal.Signals
) -> None:
    toy = new_toy(tmp_path / "waiting", ())
    (toy.root / "configs" / "demo.yaml").write_text("name: waiting\n")
    cells = [("md", "# work"), ("", "import os\nimport time\nfrom pipeline.runtime.step import Step")]
    cells += [("parameters", "size: int = 1  # of it")]
    cells += [("interface", 'step = Step.open("work", reads=[], writes=["obj_detect_inference_files"])'), ("", WAIT)]
    toy.notebook("work", [*cells, ("", "step.commit(metrics={'size': size})")])
    process = started(*SWEEP, "--over", "work.size=1,2", cwd=toy.root)
    toy.wait_for(lambda: len(toy.runs()) == 2 and "work" in toy.runs()[1]["steps"])
    kernel = toy.kernel()
    process.send_signal(how)
    log = process.communicate(timeout=60)[1]
    toy.wait_for(lambda: not toy.is_alive(kernel))
    assert process.returncode == (130 if how == signal.SIGINT else -9)
    assert ("the same command goes on from there" in log) == (how == signal.SIGINT)
    before = [row["run"] for row in toy.runs()]
    (toy.root / ".cache" / "go").touch()
    outcome = toy.look(*SWEEP, "--over=work.size=1,2")
    assert outcome.code == 0
    assert f"run {before[0]} has ended" in outcome.log
    assert f"run {before[1]}  continued" in outcome.log
    assert [row["run"] for row in toy.runs()] == before
    assert toy.statuses() == {"work": "succeeded"}
    figures = {each["number"]: each for each in toy.json(*SWEEP, "--over=work.size=1,2")["trials"]}
    assert figures[2]["is_train_longer"] == (how == signal.SIGKILL), "nobody recorded how long a killed attempt took"
    assert not figures[1]["is_train_longer"]


@pytest.mark.slow
def test_a_real_sweep_compares_real_models(tmp_path: Path) -> None:
    """On the embedded sample: real trainings, services and requests."""
    for name in ("steps", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name in ("step.dev.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    fixed = {
        "data_load.source_url": "sample://shapes?images=24&size=64&seed=3",
        "model_train.image_size": "64",
        "model_eval.min_map50": "0",
        "model_eval.allow_no_detections": "true",
    }
    over = ["--over=model_train.epochs=1,2", *(f"--over={name}={value}" for name, value in fixed.items())]
    command = [sys.executable, "-m", "pipeline", *SWEEP, *over, "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {each["values"]["model_train.epochs"] for each in told["trials"]} == {1, 2}
    assert len({each["test_set"] for each in told["trials"]}) == 1
    for each in told["trials"]:
        assert 0 <= each["map"] <= 1
        assert 0 < each["latency_p50_ms"] <= each["latency_p95_ms"]
        assert each["train_seconds"] > 1
    assert any(each["on_front"] for each in told["trials"])
    page = Path(told["page"]).read_text()
    assert "<img" in page
    assert "data_load    reused" in done.stderr
    assert "data_prep    reused" in done.stderr
