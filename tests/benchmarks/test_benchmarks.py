"""The benchmarks run and print what they promise; whether targets are met, a test on a busy machine cannot say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PARTS = ["annotations read", "images looked at", "near duplicates", "rules", "selection", "split", "report",
         "subsets written", "samples shown"]  # fmt: skip


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: a target is missed
    assert "Traceback" not in done.stderr
    return done


def figures(script: str, limits: dict[str, float], *arguments: object) -> dict[str, Any]:
    """What it says, which holds the times against these targets."""
    done = run(script, *arguments, "--json")
    content: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if all(row["met"] for row in content["targets"]) else 1)
    assert {row["name"]: row["limit"] for row in content["targets"]} == limits
    assert all(row["met"] == (row["value"] <= row["limit"]) for row in content["targets"])
    assert all(taken > 0 for times in content["times_s"].values() for taken in times)
    return content


@pytest.mark.slow
def test_the_runner_is_held_against_bare_papermill(tmp_path: Path) -> None:
    limits = {"overhead a step above bare papermill": 0.1, "no-op run of all five": 0.5}
    content = figures("bench_runner.py", limits, "--repetitions", 1, "--folder", tmp_path)
    assert set(content["times_s"]) == {"bare", "ours", "no_op", "python", "import_cli"}
    overhead = content["times_s"]["ours"][0] - content["times_s"]["bare"][0]
    assert content["figures"]["overhead_a_step_s"] == pytest.approx(overhead / 5)
    assert list(tmp_path.iterdir()) == [], "everything is removed afterwards"


def test_the_store_is_held_against_the_systems_own_tools(tmp_path: Path) -> None:
    small = ("--files", 40, "--megabytes", 2, "--repetitions", 1, "--folder", tmp_path)
    limits = {"put to sha256sum + cp -r": 2.0, "put again to the first put": 0.2, "get, linked, to sha256sum": 1.5}
    content = figures("bench_store.py", limits, *small)
    assert content["figures"]["files"] == 40
    assert content["figures"]["megabytes"] == pytest.approx(2, rel=0.25)
    text = run("bench_store.py", *small).stdout
    for promised in ("get, copied", "sync", "hashlib", "17 s to put, 12.4 s to get and 3 s to start", "of at most 1.5"):
        assert promised in text
    assert list(tmp_path.iterdir()) == [], "everything is removed afterwards"


@pytest.mark.slow
def test_the_parts_of_data_prep_make_up_the_whole(tmp_path: Path) -> None:
    growth = "20 times the boxes: more boxes"
    limits = {"data_prep to decoding every image once": 2.5, "peak memory of data_prep": 1.0}
    limits |= {f"{growth}, images": 25.0, growth: 25.0, f"{growth} of one class": 25.0}
    small = ("--images", 60, "--boxes", 430, "--turns", 1, "--folder", tmp_path)
    content = figures("bench_data.py", limits, *small)
    times = {name: taken[0] for name, taken in content["times_s"].items()}
    assert [name.strip() for name in times if name.startswith("  ")] == PARTS
    parts = sum(taken for name, taken in times.items() if name.startswith("  "))
    assert parts == pytest.approx(times["data_prep"], rel=0.02)
    assert content["figures"]["data_prep_to_decoding"] == pytest.approx(times["data_prep"] / times["decoding"])
    assert content["figures"]["growth, more boxes"] == pytest.approx(times["more boxes"] / times["boxes"])
    assert 0.05 < content["figures"]["memory_gb"] < 1
    (source,) = tmp_path.iterdir()  # only the images stay, for the next run
    sizes = sorted(path.stat().st_size for path in (source / "images").iterdir())
    assert len(sizes) == 60
    assert sizes[30] == pytest.approx(150_000, rel=0.15)


@pytest.mark.slow
def test_training_is_held_against_mmdets_own_runner(real_data: Path) -> None:
    small = ["--variant=nano", "--augmentation=mosaic", "--size=64", "--batch=32", "--epochs=2", "--turns=1"]
    done = run("bench_train.py", *small, "--json")
    content = json.loads(done.stdout)
    assert done.returncode == (0 if content["met"] else 1)
    [row] = content["rows"]
    assert row["ratio"] == pytest.approx(row["ours"] / row["theirs"])
    assert content["met"] == (row["ratio"] >= row["least"] == 1.3)
    assert min(row["their_loss"], row["our_loss"]) > 0


@pytest.mark.slow
def test_the_service_is_held_against_a_plain_one_and_a_bare_loop() -> None:
    done = run("bench_serving.py", "--model=nano-256", "--seconds=0.5", "--turns=1", "--json")
    content = json.loads(done.stdout)
    assert done.returncode == (0 if content["met"] else 1)
    [model] = content["models"]
    loads = [row for row in model["rows"] if "clients" in row]
    assert [(row["clients"], row["images"], row["least"]) for row in loads] == [
        (1, 1, 1.2), (4, 1, 1.2), (16, 1, 1.2), (1, 16, 1.3), (4, 16, 1.3),
    ]  # fmt: skip
    for row in loads:
        assert row["ratio"] == pytest.approx(row["ours_images_per_second"] / row["plain_images_per_second"])
        assert 0 < row["ours_p50"] <= row["ours_p99"]
    rest = {row["what"]: row.get("value", row.get("ratio")) for row in model["rows"] if "what" in row}
    assert 0.5 < rest["start to ready, s"] < 60
    assert 50 < rest["memory, idle, MB"] <= rest["memory, loaded, MB"] < 1000


@pytest.mark.slow
def test_a_variant_of_the_recipe_is_measured_and_rendered(real_data: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    asked = ["--task=sample", "--variant=chosen", "--seeds=0", "--recipe=epochs=1", "--at-once=1", "--results", results]
    assert run("finetuning.py", *asked).returncode == 0
    record = json.loads(results.read_text())
    assert (record["task"], record["variant"], record["seed"]) == ("sample", "epochs=1", 0)
    assert len(record["eval"]) == 2, "the untouched weights, and the epoch"
    assert 0 <= record["last"] <= record["best"] <= 1 or record["best_epoch"] == 0
    assert run("finetuning.py", *asked).stdout == "", "what is there is not run again"


@pytest.mark.slow
def test_the_forms_of_a_model_are_measured(real_data: Path) -> None:
    small = ["--images=6", "--turns=4"]
    plain, *others = json.loads(run("bench_forms.py", *small, "--json").stdout)["forms"]
    assert (plain["runtime"], plain["precision"], plain["all_cores"]) == ("cpu", "fp32", 1.0)
    computed = [(row["runtime"], row["precision"]) for row in others]
    assert computed.pop(2) in {("openvino", "bf16"), ("openvino", "fp32")}, "not every CPU has bf16"
    assert computed == [("cpu", "int8"), ("openvino", "fp32"), ("openvino", "int8")]
    for row in others:
        assert row["map"] == pytest.approx(plain["map"], abs=0.15)
        assert min(row["one_thread"], row["alone"], row["all_cores"], row["alone_ms"]) > 0
        assert (row["model_mb"] < 0.5 * plain["model_mb"]) == (row["precision"] == "int8")
    assert others[-1]["package_mb"] > 2 * plain["package_mb"]
    assert run("bench_forms.py", *small).stdout.splitlines()[1].startswith("cpu fp32")


@pytest.mark.slow
def test_detectors_are_measured_beside_yolox_s() -> None:
    small = ["--detector=yolox-nano", "--detector=rtmdet-tiny", "--size=64", "--turns=4"]
    nano, tiny = json.loads(run("bench_models.py", *small, "--json").stdout)["models"]
    assert (nano["detector"], tiny["detector"]) == ("yolox-nano", "rtmdet-tiny")
    assert 0.9e6 < nano["parameters"] < 1e6 < 4.8e6 < tiny["parameters"] < 5e6
    for row in (nano, tiny):
        assert row["onnx_bytes"] > 3.5 * row["parameters"]
        assert row["time"] > 0


@pytest.mark.slow
def test_tiles_are_measured_beside_whole_images() -> None:
    small = ["--side=800", "--epochs=1", "--size=64", "--tile=192"]
    rows = json.loads(run("bench_tiles.py", *small, "--json").stdout)["rows"]
    assert [row["name"] for row in rows] == ["whole images", "tiles", "tiles alone"]
    assert len({row["steps"] for row in rows}) == 1
    assert all(row["seconds"] > 0 and 0 <= row["map"] <= row["map50"] for row in rows)


def test_the_page_on_fine_tuning_is_what_the_results_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import finetuning

    page = tmp_path / "finetuning.md"
    page.write_text(finetuning.PAGE.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(finetuning, "PAGE", page)
    finetuning.render(finetuning.read_results(finetuning.RESULTS))
    assert page.read_text("utf-8") == (BENCHMARKS.parent / "docs" / "finetuning.md").read_text("utf-8")
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_evaluation_is_held_against_pycocotools(tmp_path: Path) -> None:
    limits = {"all figures and intervals to pycocotools' twelve": 1.0, "memory to pycocotools' memory": 0.5}
    limits |= {"difference of mAP": 0.0}
    content = figures("bench_eval.py", limits, "--images", 40, "--draws", 20, "--folder", tmp_path)
    assert set(content["times_s"]) == {"pycocotools", "ours", "without_intervals"}
    assert content["targets"][-1]["value"] == 0
    assert list(tmp_path.iterdir()) == [], "everything is removed afterwards"


def test_the_search_for_learned_images_is_measured(tmp_path: Path) -> None:
    limits = {"search beside decoding": 30.0, "record, bytes an image": 321.0}
    small = ("--learned", 300, "--images", 20, "--repetitions", 1, "--folder", tmp_path)
    content = figures("bench_learned.py", limits, *small)
    assert content["figures"]["found"] == 10
    assert content["figures"]["bytes_an_image"] == pytest.approx(320, rel=0.05)


@pytest.mark.slow
def test_time_and_memory_are_measured_by_the_number_of_images(tmp_path: Path) -> None:
    small = ("--images", 30, 300, "--s3-most", 30, "--folder", tmp_path)
    content = json.loads(run("bench_scale.py", *small, "--json").stdout)
    figures = content["figures"]
    local = ["annotations", "near duplicates", "data_prep", "tables", "training data", "validation", "index"]
    for part in local:
        least = max(figures[f"{part}, 30, s"], 1e-3)  # what is shorter counts as so much
        assert figures[f"growth, {part}"] == pytest.approx(figures[f"{part}, 300, s"] / least, 0.1)
        assert figures[f"{part}, 300, MB"] >= 0
    for part in ("put", "get", "get again", "listing"):
        assert figures[f"{part}, 30, s"] > 0
        assert f"{part}, 300, s" not in figures
    assert {row["limit"] for row in content["targets"]} == {13.0}
    assert list(tmp_path.iterdir()) == [], "everything is removed afterwards"
