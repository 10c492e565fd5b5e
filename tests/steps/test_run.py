"""The five notebooks, headless, on a tiny sample."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
import requests
from git_checkout import git
from ports import free_ports

STEPS = ("data_load", "data_prep", "model_train", "model_pack", "model_eval")


@pytest.fixture(scope="module")
def manifest(tiny_run: Any) -> dict[str, Any]:
    """Of the first run."""
    oldest = json.loads(tiny_run.look("runs", "--json").stdout)[-1]["run"]
    return tiny_run.manifest(oldest)


def artifact_files(project: Any, manifest: dict[str, Any], step: str, entity: str) -> dict[str, Path]:
    """Path in the artifact to the object that holds it."""
    store = project.root / ".store" / "default" / "dev"
    index = json.loads(Path(manifest["steps"][step]["outputs"][entity]["url"].removeprefix("file://")).read_text())
    return {f["path"]: store / "objects" / f["sha256"][:2] / f["sha256"] for f in index["files"]}


def test_each_input_is_the_very_artifact_an_earlier_step_wrote(manifest: dict[str, Any]) -> None:
    assert tuple(manifest["steps"]) == STEPS
    written: dict[str, Any] = {}
    for name in STEPS:
        step = manifest["steps"][name]
        assert step["status"] == "succeeded"
        assert step["inputs"] == {entity: written[entity] for entity in step["inputs"]}
        for entity, artifact in step["outputs"].items():
            assert artifact["url"].endswith(f"/{entity}/{artifact['digest']}")
            assert artifact["made_by"] == f"{manifest['run']}/{name}/1"
        written.update(step["outputs"])
    assert len(written) == 13


def test_what_was_made_is_printed(tiny_run: Any, manifest: dict[str, Any]) -> None:
    text = (tiny_run.root / ".cache" / "printed.txt").read_text()
    assert f"run {manifest['run']}" in text
    for name in STEPS:
        assert re.search(rf"^  {name} +succeeded +\d+\.\d s", text, re.MULTILINE)
    assert re.search(r"model_eval .* mAP \d.* mAP50 \d", text)
    report = Path(re.search(r"^report +(\S+)$", text, re.MULTILINE)[1])
    assert report.read_text().lower().startswith("<!doctype html")


def test_the_printed_command_serves_the_model(tiny_run: Any) -> None:
    text = (tiny_run.root / ".cache" / "printed.txt").read_text()
    command = re.search(r"^serve +(.*)$", text, re.MULTILINE)[1]
    (port,) = free_ports()
    server = subprocess.Popen(
        shlex.split(command.replace("3000", str(port))),
        cwd=tiny_run.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        info = wait_for(f"http://127.0.0.1:{port}/info", server)
        assert info["classes"] == ["circle", "square", "triangle", "star"]
    finally:
        server.terminate()
        server.communicate(timeout=30)


def wait_for(url: str, server: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What a server answers once it is up."""
    for _ in range(240):
        assert server.poll() is None, server.stdout.read().decode()
        try:
            return requests.post(url, timeout=5).json()
        except requests.RequestException:  # not there yet, or too busy to answer
            time.sleep(0.25)
    raise TimeoutError(url)


def test_the_manifest_holds_what_a_reader_asks_for(manifest: dict[str, Any]) -> None:
    assert (manifest["mode"], manifest["pipeline"]) == ("dev", "demo")
    train, packed = manifest["steps"]["model_train"], manifest["steps"]["model_pack"]["metrics"]
    assert (train["parameters"]["epochs"], train["parameters"]["detector"]) == (1, "yolox-nano")
    assert train["environment"]["torch"].startswith("2.13.0")
    assert Path(train["notebook"]).is_file()
    assert packed["parity_compared"] > 0
    assert 0 < packed["parity_max_box_difference"] <= 0.01
    assert packed["parity_max_score_difference"] <= 1e-4


def test_the_service_says_what_it_was_made_from(tiny_run: Any, manifest: dict[str, Any]) -> None:
    files = artifact_files(tiny_run, manifest, "model_pack", "bento_service")
    origin = json.loads(files["src/model.json"].read_text())["origin"]
    inputs = manifest["steps"]["model_train"]["inputs"]
    assert origin["data"] == {name: each["digest"] for name, each in inputs.items()}
    assert origin["commit"].removesuffix("-dirty") == manifest["code"]["commit"]
    assert origin["created"].replace("Z", "+00:00") in files["bento.yaml"].read_text()
    assert manifest["run"] not in "".join(path.read_text(errors="replace") for path in files.values())


def test_the_executed_notebook_shows_the_figures_of_the_page(tiny_run: Any, manifest: dict[str, Any]) -> None:
    notebook = nbformat.read(manifest["steps"]["data_prep"]["notebook"], as_version=4)
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = sum("image/png" in data for data in shown)
    pictures += sum(data.get("text/html", "").count('src="data:image/') for data in shown)
    files = artifact_files(tiny_run, manifest, "data_prep", "data_report")
    page = files["report.html"].read_text()
    assert pictures == page.count('src="data:image/') + 1  # those of the page, and the grid of what the model will see
    assert page.count("<h2") >= 7


def test_the_data_report_names_its_data_and_its_command_finds_the_run(tiny_run: Any, manifest: dict[str, Any]) -> None:
    step = manifest["steps"]["data_prep"]
    page = artifact_files(tiny_run, manifest, "data_prep", "data_report")["report.html"].read_text()
    source = "sample://shapes?images=24&amp;size=64&amp;seed=3"
    digests = [each["digest"] for each in step["inputs"].values()]
    for part in ("Data report: Embedded sample of shapes", source, manifest["code"]["commit"], *digests):
        assert part in page, part
    assert manifest["run"] not in page, "each run's report would be another artifact"
    command = re.search("<code>python -m pipeline (lineage [^<]+)</code>", page)[1]
    found = tiny_run.look(*command.split())
    assert found.returncode == 0, found.stderr
    report = f"data_report  {step['outputs']['data_report']['digest'][:12]}  "
    assert re.search(rf"{report}\d+ files, [\d.]+ MB  {manifest['run']}/data_prep/1", found.stdout), found.stdout
    index = (tiny_run.root / "out/dev/demo/index.html").read_text()
    assert "data_report/report.html" in index
    assert re.search("<dt>run</dt><dd>20.*\n<dt>opened</dt><dd>20", index), "the run and its date stand there"


def test_in_another_zone_the_command_of_the_report_finds_the_run(project: Any, tiny: list[str]) -> None:
    config = project.root / "configs/team.yaml"
    config.write_text((project.root / "configs/demo.yaml").read_text() + "zone: team\n")
    chosen = ["--config", "configs/team.yaml"]
    for step in ("data_load", "data_prep"):
        done = project.step(step, *chosen, *tiny)
        assert done.returncode == 0, done.stderr
    page = (project.root / "out/dev/demo/data_report/report.html").read_text()
    command = re.search("<code>python -m pipeline (lineage [^<]+)</code>", page)[1]
    found = project.look(*command.split())
    assert found.returncode == 0, found.stderr
    assert f"{project.manifest(*chosen)['run']}/data_prep/1" in found.stdout
    alone = project.look(*command.replace("--config configs/team.yaml", "").split())
    assert alone.returncode != 0, "it is in no other zone"


def test_running_all_again_reuses_all_five_and_says_so(
    tiny_run: Any, manifest: dict[str, Any], tiny: list[str]
) -> None:
    before = tiny_run.artifacts()
    done = tiny_run.step(*tiny)
    assert done.returncode == 0, done.stderr
    for name in STEPS:
        assert re.search(rf"^  {name} +reused .*from {manifest['run']}/{name}/1$", done.stdout, re.MULTILINE), (
            done.stdout
        )
    again = tiny_run.manifest()
    assert again["run"] != manifest["run"]
    for name in STEPS:
        assert again["steps"][name]["outputs"] == manifest["steps"][name]["outputs"]
    assert tiny_run.artifacts() == before


@pytest.mark.slow
def test_the_same_work_gives_the_same_artifacts_elsewhere(
    tiny_run: Any, manifest: dict[str, Any], tmp_path: Path, tiny: list[str]
) -> None:
    """A clone, no store to reuse from: the same digests, from raw images to the packed service."""
    git(tmp_path, "clone", "-q", str(tiny_run.root), "elsewhere")
    other = type(tiny_run)(tmp_path / "elsewhere")
    for step in STEPS[:4]:
        done = other.step(step, *tiny)
        assert done.returncode == 0, done.stderr
    for name, step in other.manifest()["steps"].items():
        assert {entity: a["digest"] for entity, a in step["outputs"].items()} == {
            entity: a["digest"] for entity, a in manifest["steps"][name]["outputs"].items()
        }


def test_a_changed_parameter_runs_its_step_and_below_the_gate_it_fails_and_keeps_its_report(
    tiny_run: Any, tiny: list[str]
) -> None:
    done = tiny_run.step(*tiny, "--set", "model_eval.min_map50=0.99")
    assert done.returncode == 1
    assert "quality gate" in done.stderr
    assert len(done.stderr[done.stderr.index("error: ") :].splitlines()) < 20
    steps = tiny_run.manifest()["steps"]
    assert [step["status"] for step in steps.values()] == ["reused"] * 4 + ["failed"]
    assert (tiny_run.root / "out/dev/demo/below_gate/model_quality_report/report.html").is_file()
    limits = steps["model_eval"]["limits"]
    assert [text.partition(" ")[0] for text, is_met in limits.items() if is_met is False] == ["mAP50"]


@pytest.mark.slow
def test_another_form_is_packed_with_its_accuracy_measured(tiny_run: Any, tiny: list[str]) -> None:
    """Whichever precision is faster here: INT8, or fp32 with a note that says so."""
    chosen = ["--set", "model_pack.runtime=openvino", "--set", "model_pack.precision=int8"]
    done = tiny_run.step("model_pack", *tiny, *chosen)
    assert done.returncode == 0, done.stderr
    manifest = tiny_run.manifest()
    step = manifest["steps"]["model_pack"]
    model = json.loads(artifact_files(tiny_run, manifest, "model_pack", "bento_service")["src/model.json"].read_text())
    metrics = step["metrics"]
    assert metrics["map_loss"] == pytest.approx(metrics["map_fp32"] - metrics["map_packed"])
    assert metrics["map_loss"] <= 0.01
    assert model["runtime"] == "openvino"
    assert model["precision"] == ("int8" if metrics["time_to_fp32"] <= 0.95 else "fp32")
    told = [note for note in step["notes"] if note.startswith("packed in fp32: int8 took ")]
    assert len(told) == (model["precision"] == "fp32")
    assert {*step["inputs"]} == {"obj_detect_inference_files", "coco_train_dataset", "coco_eval_dataset"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        pytest.param(["precision=bf16"], "'cpu' does not compute in bf16", id="a precision of another runtime"),
        pytest.param(["runtime=openvinoo"], "openvino", id="no such runtime"),
    ],
)
def test_a_form_that_does_not_exist_is_refused(tiny_run: Any, tiny: list[str], chosen: list[str], says: str) -> None:
    before = tiny_run.artifacts()
    done = tiny_run.step("model_pack", *tiny, *(part for one in chosen for part in ("--set", f"model_pack.{one}")))
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert tiny_run.artifacts() == before
