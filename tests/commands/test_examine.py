"""`python -m pipeline examine`: the exam of a packed service, replayed through its REST API."""

from __future__ import annotations

import json
import shutil
import signal
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import evaluations
import psutil
import pytest
from cases import cases
from exam import in_process

from pipeline.cli.command import CommandContext
from pipeline.commands.exam_replay import Comparison, Replay, compare, decide, replay
from pipeline.commands.examine_command import outcome
from pipeline.commands.recorded_exams import Exam, find_exam
from pipeline.evaluation.prediction_differences import PredictionDifferences
from pipeline.evaluation.quality_gate import QualityGate, Requirement
from pipeline.metrics.ground_truth import read_ground_truth
from pipeline.runtime import execution, runner
from pipeline.runtime.code import environment, hardware
from pipeline.runtime.store.artifact_store import Artifact, Store

IMPORTS = """\
import json
import shutil
import time
from dataclasses import replace
import cv2
import numpy as np
from pathlib import Path
from pipeline.client.service_process import serve
from pipeline.evaluation.gate_limits import read_limits
from pipeline.metrics.ground_truth import read_ground_truth
from pipeline.evaluation.measurement import measure
from pipeline.evaluation.prediction import predict_dataset
from pipeline.evaluation.quality_gate import judge
from pipeline.evaluation.references import ReferenceDetections
from pipeline.runtime.step import Step
"""
PACK = 'shutil.copytree(source, step.outputs["bento_service"], dirs_exist_ok=True)'
PREPARE = """\
folder = step.outputs["coco_test_dataset"]
(folder / "images").mkdir()
images, boxes = [], []
for number, grey in enumerate(range(darkest, 256, 20), 1):
    cv2.imwrite(str(folder / "images" / f"{number}.png"), np.full((64, 64, 3), grey, np.uint8))
    images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
    box = {"category_id": 1 if grey > 127 else 2, "bbox": [8, 8, 32, 32], "area": 1024, "iscrowd": 0}
    boxes.append({"id": number, "image_id": number} | box)
kinds = [{"id": 1, "name": "bright"}, {"id": 2, "name": "dark"}]
content = {"images": images, "annotations": boxes, "categories": kinds}
(folder / "annotations.json").write_text(json.dumps(content))"""
EVALUATE = """\
written = step.outputs["coco_inference_result_dataset"] / "predictions.json"
truth = read_ground_truth(step.inputs["coco_test_dataset"] / "annotations.json")
with serve(step.inputs["bento_service"]) as service:
    found = predict_dataset(service.url, truth, score_threshold=score_threshold, workers=workers)
found = replace(found, results=json.loads(Path(given).read_text())) if given else found
found.write_results(written)
measured = measure(truth, found, step.inputs["bento_service"], {"given": ReferenceDetections(found.results)})
gate = judge(
    measured, read_limits(limits, truth.categories.values()), min_map50=min_map50, max_seen_exact=max_seen_exact,
    max_seen_similar=max_seen_similar, allow_no_detections=allow_no_detections, release=step.mode == "prod",
)"""
COMMIT = """\
step.commit(
    metrics={**measured.figures(), "seconds": time.monotonic()}, limits=gate.outcomes,
    judged="bento_service", evidence=["coco_inference_result_dataset/predictions.json"],
)"""
JUDGE = """\
given: str = ""  # predictions
score_threshold: float = 0.3  # least
workers: int = 2  # requests
limits: list[str] = ["mAP >= given - 0.5"]  # further limits
min_map50: float = 0.5  # least
max_seen_exact: float = 1.0  # share
max_seen_similar: float = 1.0  # share
allow_no_detections: bool = False  # whether they may lack"""
STEPS = {
    "prep": ("darkest: int = 20  # image", [], ["coco_test_dataset"], PREPARE, "step.commit(metrics={})"),
    "pack": ('source: str = ""  # folder of a Bento', [], ["bento_service"], PACK, "step.commit(metrics={})"),
    "judge": (
        JUDGE,
        ["coco_test_dataset", "bento_service"],
        ["coco_inference_result_dataset"],
        EVALUATE,
        COMMIT,
    ),
}
CONFIG = """\
name: toy
deliver:
  bento_service: "serve {path}"
"""


@pytest.fixture(scope="session")
def _examined(new_toy: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, bento: Path) -> Any:
    toy = new_toy(tmp_path_factory.mktemp("examine") / "project", ())
    for name, (parameters, reads, writes, work, commit) in STEPS.items():
        opened = f"step = Step.open({name!r}, reads={reads}, writes={writes})"
        cells = [("md", f"# {name}"), ("", IMPORTS), ("parameters", parameters), ("interface", opened)]
        toy.notebook(name, [*cells, ("", work), ("", commit)])
    (toy.root / "configs" / "demo.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "execute", in_process)
        assert toy.step("--set", f"pack.source={bento}").code == 0
    return toy


@pytest.fixture
def examined(_examined: Any, tmp_path: Path, in_process: None) -> Any:
    """A project with a run that packed and examined a service; a copy, for this test alone."""
    shutil.copytree(_examined.root, tmp_path / "copy")
    return type(_examined)(tmp_path / "copy")


def found(toy: Any, bento: str, run: str | None = None, statement: Path | None = None) -> Exam:
    """The exam that a person names."""
    arguments = Namespace(mode="dev", config=None)
    return find_exam(CommandContext(arguments, toy.root), bento, run, statement)


def test_the_exam_of_a_deployed_folder_is_reproduced(examined: Any) -> None:
    manifest = examined.manifest()
    judged = manifest["steps"]["judge"]
    outcome = examined.look("examine", "out/dev/toy/bento_service")
    assert outcome.code == 0, outcome.log
    (digest,) = judged["evidence"].values()
    assert outcome.out.splitlines() == [
        "the exam is reproduced: 12 images, the same predictions, gate passed",
        f"  bento        {judged['inputs']['bento_service']['digest']}",
        f"  test set     {judged['inputs']['coco_test_dataset']['digest']}",
        f"  exam         {manifest['run']}/judge/1",
        f"  predictions  {digest}",
        "  mAP          0.7525",
        "  gate passed",
        "    met  mAP50 0.7525, at least 0.5",
        "    met  detections in the test set 9, at least 1",
        "    met  mAP minus that of the given weights +0 (+0.000 to +0.000), at",
        "         least -0.5",
    ]
    assert "laying out coco_test_dataset" in outcome.log
    assert examined.left_over() == []


def test_a_run_an_artifact_and_a_folder_name_the_same_exam(examined: Any) -> None:
    bento = examined.manifest()["steps"]["judge"]["inputs"]["bento_service"]
    exam = found(examined, "latest")
    folder = str(examined.root / "out/dev/toy/bento_service")
    for name in (f"bento_service/{bento['digest'][:9]}", bento["url"], folder):
        assert found(examined, name) == exam
    assert exam.bento.digest == bento["digest"]
    assert exam.hardware == hardware(environment())


def test_another_number_of_workers_gives_the_same_bytes(examined: Any) -> None:
    assert examined.step("judge", "--set", "judge.workers=1").code == 0
    newest = examined.manifest()["steps"]["judge"]
    assert newest["status"] == "succeeded"
    assert [each["evidence"] for each in newest["earlier_attempts"]] == [newest["evidence"]]


def test_a_folder_of_other_bytes_is_refused_before_anything_is_served(examined: Any, other_bento: Path) -> None:
    folder = examined.root / "out/dev/toy/bento_service"
    digest = examined.manifest()["steps"]["pack"]["outputs"]["bento_service"]["digest"][:12]

    def refused(named: Path, *says: str) -> None:
        outcome = examined.look("examine", str(named))
        outcome.fails("is not the packed service of any run; it differs from", *says, "deploy a run's service again")
        assert "laying out" not in outcome.log

    model = folder / "src" / "model.onnx"
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(folder, f"bento_service/{digest} in src/model.onnx\n")
    model.write_bytes(content)
    (folder / "src" / "more.py").write_text("")
    refused(folder, f"bento_service/{digest} in src/more.py\n")
    refused(other_bento, f"bento_service/{digest} in ", " and ")


@cases(
    "names, says, code",
    {
        "no run": (["zzz"], "there is no run 'zzz'", 1),
        "no artifact": (["bento_service/abcdef"], "no run knows an artifact 'bento_service/abcdef'", 1),
        "another entity": (["coco_test_dataset/abcdef"], "coco_test_dataset is no packed service", 2),
        "no Bento": (["configs"], "this folder holds no packed service", 2),
        "no such run of the exam": (["latest", "--run", "zzz"], "there is no run 'zzz'", 1),
        "no statement": (["latest", "--statement", "none.jsonl"], "there is no such file", 1),
        "no statements": (["latest", "--statement", "configs/demo.yaml"], "these are no exported Statements", 1),
    },
)
def test_an_unknown_name_is_refused(examined: Any, names: list[str], says: str, code: int) -> None:
    examined.look("examine", *names).fails(says, code=code)


def test_a_service_without_an_exam_is_told(examined: Any, other_bento: Path) -> None:
    examined.step("pack", "--set", f"pack.source={other_bento}")
    digest = examined.manifest()["steps"]["pack"]["outputs"]["bento_service"]["digest"]
    examined.look("examine", f"bento_service/{digest}").fails(f"no exam of bento_service/{digest[:12]} is recorded")


def predictions(toy: Any) -> list[dict[str, Any]]:
    """Those of the newest exam."""
    (digest,) = toy.manifest()["steps"]["judge"]["evidence"].values()
    content = (toy.root / ".store/default/dev/objects" / digest[:2] / digest).read_text()
    results: list[dict[str, Any]] = json.loads(content)
    return results


def examine_again(toy: Any, results: list[dict[str, Any]], **values: Any) -> Any:
    """Record an exam with other predictions than those of the service."""
    (toy.root / "given.json").write_text(json.dumps(results))
    values["given"] = toy.root / "given.json"
    return toy.step("judge", *(text for name, value in values.items() for text in ("--set", f"judge.{name}={value}")))


def test_the_newest_exam_is_taken_and_that_of_a_run_where_one_is_named(examined: Any) -> None:
    first, service = examined.manifest()["run"], found(examined, "latest").bento
    results = [each for each in predictions(examined) if each["image_id"] <= 9]
    source = examined.manifest()["steps"]["pack"]["parameters"]["source"]
    given = examined.root / "given.json"
    given.write_text(json.dumps(results))
    settings = ("prep.darkest=90", f"pack.source={source}", f"judge.given={given}", "judge.min_map50=1.5")
    assert examined.step(*(text for each in settings for text in ("--set", each))).code == 1, "the gate is missed"
    second = examined.manifest()["run"]
    name = f"bento_service/{service.digest}"
    exams = [found(examined, name), found(examined, name, run=first), found(examined, first)]
    assert [each.name for each in exams] == [f"{second}/judge/1", f"{first}/judge/1", f"{first}/judge/1"]
    assert [each.gate for each in exams] == ["failed", "passed", "passed"]
    assert exams[0].test_set != exams[1].test_set


def test_a_reused_exam_was_held_where_it_was_computed(examined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = examined.manifest()
    monkeypatch.setattr(runner, "environment", lambda: {**environment(), "processor": "a VAX"})
    source = first["steps"]["pack"]["parameters"]["source"]
    assert examined.step("--set", f"pack.source={source}").code == 0
    assert examined.statuses()["judge"] == "reused"
    exam = found(examined, "latest")
    assert (exam.name, exam.hardware) == (f"{first['run']}/judge/1", hardware(environment()))
    shutil.rmtree(examined.root / ".store/default/dev/runs" / first["run"])
    assert found(examined, "latest").hardware == ""


def test_a_record_without_limits_is_read(examined: Any) -> None:
    for path in (examined.root / ".store/default/dev/runs").glob("*/attempts/judge.*.json"):  # as schema 3 had it
        old = json.loads(path.read_text())
        for name in ("limits", "judged", "evidence"):
            del old[name]
        del old["environment"]["processor"]
        path.write_text(json.dumps({**old, "schema": 3}) + "\n")
    exam = found(examined, "latest")
    assert (exam.gate, exam.hardware, exam.limits) == ("unknown", "", {})


def test_a_gate_that_fails_here_is_told_with_how_far_the_predictions_are_apart(examined: Any) -> None:
    results = predictions(examined)  # the service finds nothing on the three darkest images
    results += [{**results[0], "image_id": number} for number in (1, 2, 3)]
    results[0]["bbox"][0] += 0.25
    results[1]["score"] -= 0.125
    assert examine_again(examined, results, min_map50=0.9).code == 0
    exam, context = found(examined, "latest"), CommandContext(Namespace(mode="dev", config=None), examined.root)
    result = outcome(exam, replay(context, exam), {**environment(), "processor": "a VAX"})
    assert result.code == 1
    lines = result.text.splitlines()
    assert lines[0] == "the exam was held on another kind of processor, and the predictions differ;"
    assert lines[1] == "the gate's decision changes from passed to failed"
    for line in (
        "  detections   12 recorded, 9 replayed, 3 without counterpart",
        "  boxes        differ by up to 0.25 pixels",
        "  scores       differ by up to 0.125",
        "  mAP          1.0000 recorded, 0.7525 replayed",
        "    here       a VAX",
        "    met  mAP50 1, at least 0.9",
    ):
        assert line in lines
    assert max(map(len, lines)) <= 80
    against_given = "mAP minus that of the given weights +0 (+0.000 to +0.000), at least -0.5"
    assert result.content["differences"]["kept"] == (against_given,)


def test_the_gate_is_unknown_where_its_parameters_are_not_recorded(examined: Any, tmp_path: Path) -> None:
    exam, store = found(examined, "latest"), Store((examined.root / ".store/default/dev").as_uri())
    truth = read_ground_truth(store.get(exam.test_set, tmp_path / "test") / "annotations.json")
    recorded, older = predictions(examined), replace(exam, parameters={"score_threshold": 0.3})
    compared = compare(older, truth, recorded, evaluations.predictions(recorded[1:]), tmp_path)
    assert (compared.gate, compared.kept, compared.predictions.unmatched) == ("unknown", (), 1)


def test_a_folder_is_held_against_a_statement_without_any_record(examined: Any, other_bento: Path) -> None:
    file, folder = examined.root / "exam.jsonl", str(examined.root / "out/dev/toy/bento_service")
    assert examined.look("export", "--output", str(file)).code == 0
    recorded = found(examined, "latest")
    shutil.rmtree(examined.root / ".store/default/dev/runs")
    exam = found(examined, folder, statement=file)
    same = ("predictions", "mode", "parameters", "limits", "gate", "hardware")
    assert [getattr(exam, name) for name in same] == [getattr(recorded, name) for name in same]
    assert (exam.bento.key, exam.test_set.key) == (recorded.bento.key, recorded.test_set.key)
    assert exam.name == str(file)
    statement = ["--statement", str(file)]
    examined.look("examine", str(other_bento), *statement).fails("the file has no test result about bento_service/")
    attested = json.loads(file.read_text().splitlines()[-1])
    del attested["predicate"]["configuration"][-1]
    file.write_text(json.dumps(attested))
    examined.look("examine", folder, *statement).fails("these are no exported Statements: KeyError: 'gate'")


def test_ctrl_c_leaves_nothing(examined: Any, started: Any) -> None:
    process = started("examine", "latest", cwd=examined.root)
    work = examined.root / ".cache" / "work"
    examined.wait_for(lambda: any(work.glob("examine.*/server.log")))
    examined.wait_for(lambda: bool(psutil.Process(process.pid).children()))
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert not [each for each in psutil.wait_procs(family, timeout=3)[1] if each.status() != psutil.STATUS_ZOMBIE]
    assert examined.left_over() == []


HERE = {"processor": "VAX", "device": "CPU, 1 cores", "numpy": "1", "onnxruntime": "1", "opencv-python-headless": "4"}
BENTO, TEST_SET = (Artifact(name, "", digest * 64, 1, 1) for name, digest in (("bento_service", "a"), ("set", "b")))
EXAM = Exam(
    "run/judge/1", BENTO, TEST_SET, "c" * 64, "dev", {}, {"mAP50 0.7, at least 0.5": True, "share not known": None},
    "passed", "VAX", HERE
)  # fmt: skip
APART = PredictionDifferences(before=8, after=9, images=2, unmatched=1, pixels=0.1, score=0.01)
REPLAYED = Replay(3, 9, "c" * 64, 0.4, None)
ELSEWHERE = {**HERE, "processor": "Cray"}
HAS_GPU = {**HERE, "device": "GPU"}


@cases(
    "exam, gate, here, code, says",
    {
        "the same": (EXAM, "", HERE, 0, "is reproduced: 3 images, the same predictions, gate passed"),
        "elsewhere": (EXAM, "", ELSEWHERE, 0, "is reproduced: 3 images, the same predictions, gate passed"),
        "a failed gate": (replace(EXAM, gate="failed"), "", HERE, 1, "the same predictions, gate failed"),
        "no gate": (replace(EXAM, gate="none"), "", HERE, 0, "the same predictions, gate none"),
        "different": (EXAM, "passed", HERE, 1, "same kind of processor: the predictions differ on 2 of 3 images"),
        "different elsewhere": (EXAM, "passed", ELSEWHERE, 0, "the gate's decision stays the same: passed"),
        "different on a GPU": (EXAM, "passed", HAS_GPU, 0, "the gate's decision stays the same: passed"),
        "failed here": (EXAM, "failed", ELSEWHERE, 1, "the gate's decision changes from passed to failed"),
        "failed there": (replace(EXAM, gate="failed"), "passed", ELSEWHERE, 1, "changes from failed to passed"),
        "failed on both": (replace(EXAM, gate="failed"), "failed", ELSEWHERE, 1, "stays the same: failed"),
        "unknown kind": (replace(EXAM, hardware=""), "passed", HERE, 0, "on an unknown kind of processor"),
        "unknown gate": (replace(EXAM, gate="unknown"), "unknown", ELSEWHERE, 1, "the gate's decision here is unknown"),
    },
)
def test_the_outcome(exam: Exam, gate: str, here: dict[str, str], code: int, says: str) -> None:
    compared = Comparison(APART, 0.5, gate, ()) if gate else None
    result = outcome(exam, replace(REPLAYED, comparison=compared), here)
    assert result.code == code
    assert says in " ".join(result.text.split())
    assert json.loads(json.dumps(result.content))["is_reproduced"] is (not gate)


def test_other_packages_are_told() -> None:
    compared = Comparison(APART, 0.5, "passed", ())
    result = outcome(EXAM, replace(REPLAYED, comparison=compared), {**HERE, "onnxruntime": "2"})
    assert "  onnxruntime  1, here 2\n" in result.text
    assert result.content["packages"] == {"onnxruntime": ["1", "2"]}


def gate_of(*verdicts: bool | None) -> QualityGate:
    """A gate whose limits are met, missed, or unknown."""
    reached = {True: 1.0, False: 0.0, None: None}
    return QualityGate(
        tuple(
            Requirement(
                str(number), reached[each], minimum=0.5, is_quality=True, unknown="not measured" if each is None else ""
            )
            for number, each in enumerate(verdicts)
        )
    )


MET, MISSED, NOT_KNOWN = {"a": True}, {"b": False}, {"c": None}


@cases(
    "recorded, replayed, gate, kept",
    {
        "all met": (MET, [True], "passed", ()),
        "one missed here": (MET | {"d": True}, [True, False], "failed", ()),
        "one missed there": (MISSED, [True], "passed", ()),
        "one met there, unknown here": (MET, [None], "passed", ("a",)),
        "one missed there, unknown here": (MET | MISSED, [True, None], "failed", ("b",)),
        "one unknown there": (NOT_KNOWN, [True], "passed", ()),
        "unknown on both": (NOT_KNOWN, [None], "none", ("c",)),
        "no limits": ({}, [], "none", ()),
        "none recorded": ({}, [True], "unknown", ()),
        "fewer here": (MET | MISSED, [True], "unknown", ()),
    },
)
def test_what_the_replay_cannot_tell_counts_as_recorded(
    recorded: dict[str, bool | None], replayed: list[bool | None], gate: str, kept: tuple[str, ...]
) -> None:
    assert decide(replace(EXAM, limits=recorded), gate_of(*replayed)) == (gate, kept)
