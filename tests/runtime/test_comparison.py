"""Two runs side by side."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from records import COMMIT, artifact, attempt, failed, reused, run_id, run_of

from pipeline.cli.printing import comparison_text
from pipeline.runtime.comparison import Comparison, changes, compare, comparison_json
from pipeline.runtime.manifest import RunManifest

pytestmark = pytest.mark.usefixtures("in_process")

DATA, MODEL, OTHER = artifact("data"), artifact("model", "1"), artifact("model", "2")
LOAD = attempt("load", (), (DATA,), metrics={"images": 24})
FIT = attempt("fit", (DATA,), (MODEL,), metrics={"mAP": 0.5, "device": "cpu", "ok": True, "odd": None})
ONE = run_of(1, LOAD, FIT)


def differing(left: RunManifest, right: RunManifest) -> dict[str, tuple[Any, Any]]:
    return {f"{row.section} {row.name}": (row.left, row.right) for row in compare(left, right).rows if row.differs}


def described(one: Any) -> dict[str, Any]:
    return {"digest": one.digest, "files": one.files, "size": one.size}


def fit(**changes: Any) -> RunManifest:
    return run_of(2, LOAD, replace(FIT, **changes))


def beside(model: Any, status: str | None, metrics: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Of FIT beside another attempt."""
    rows = {f"metrics fit.{name}": (FIT.metrics[name], metrics.get(name)) for name in ("mAP", "device", "ok")}
    return {"run fit": ("succeeded", status), "data model": (described(MODEL), model), **rows}


CLEAN = {"commit": COMMIT, "dirty": False, "diff": "", "untracked": {}}
LATER = failed("fit", reads=(DATA,), makes=(OTHER,), attempt=2, metrics={"mAP": 0.1})
COMMITTED = run_of(2, LOAD, FIT, code={**CLEAN, "commit": "f" * 40})
CASES: dict[str, tuple[RunManifest, dict[str, Any]]] = {
    "nothing": (run_of(2, LOAD, FIT), {}),
    "to be reused is no difference": (run_of(2, reused(LOAD, run_id(1)), reused(FIT, run_id(1))), {}),
    "a parameter": (fit(parameters={"epochs": 3}), {"parameters fit.epochs": (1, 3)}),
    "a new parameter": (fit(parameters={"epochs": 1, "seed": 0}), {"parameters fit.seed": (None, 0)}),
    "an output": (fit(outputs={"model": OTHER}), {"data model": (described(MODEL), described(OTHER))}),
    "an input": (fit(inputs={"data": OTHER}), {"data data that fit read": (None, described(OTHER))}),
    "a metric": (fit(metrics={**FIT.metrics, "mAP": 0.75}), {"metrics fit.mAP": (0.5, 0.75)}),
    "a notebook": (fit(notebook_digest="f" * 64), {"code fit.notebook": ("a" * 64, "f" * 64)}),
    "the modules": (fit(code_digest="f" * 64), {"code fit.modules": ("b" * 64, "f" * 64)}),
    "the environment": (fit(environment={"python": "3.13"}), {"environment python": ("3.12.1", "3.12.1, 3.13")}),
    "the commit": (COMMITTED, {"code commit": (COMMIT, "f" * 40)}),
    "the pipeline": (run_of(2, LOAD, FIT, pipeline="coco"), {"run pipeline": ("toy", "coco")}),
    "a later failure is no difference": (run_of(2, LOAD, FIT, LATER), {}),
    "without a success its newest attempt tells": (
        run_of(2, LOAD, LATER),
        beside(described(OTHER), status="failed", metrics=LATER.metrics),
    ),
    "a step of one run is no list of parameters": (run_of(2, LOAD), beside(None, status=None, metrics={})),
}


@pytest.mark.parametrize(("other", "differences"), CASES.values(), ids=CASES)
def test_what_differs_is_found(other: RunManifest, differences: dict[str, Any]) -> None:
    assert differing(ONE, other) == differences


def test_uncommitted_changes_are_told() -> None:
    diff = "diff --git a/steps/fit.ipynb b/steps/fit.ipynb\n+x"
    one = run_of(1, LOAD, code={**CLEAN, "dirty": True, "diff": diff, "untracked": {"new.py": "a" * 64}})
    other = run_of(2, LOAD, code={**CLEAN, "dirty": True, "diff": f"{diff}y", "untracked": {"new.py": "a" * 64}})
    assert differing(run_of(3, LOAD), one)["code changed files"] == ([], ["steps/fit.ipynb", "new.py"])
    assert differing(run_of(3, LOAD), one)["code commit"] == (COMMIT, f"{COMMIT} with changes")
    assert list(differing(one, other)) == ["code changes"], "the same files, changed otherwise"
    assert differing(run_of(3, LOAD, code={}), run_of(4, LOAD, code={})) == {}, "a record without its code"


def test_inputs_that_were_chosen_by_hand_are_always_shown() -> None:
    chosen = fit(chosen={"data": run_id(7)}, chosen_before={"load: seeds": run_id(5)})
    shown = [f"load: seeds {run_id(5)} {run_id(5)}", f"fit: data {run_id(7)} {run_id(7)}"]
    text = lines(compare(chosen, chosen))
    assert text[text.index("chosen by hand") + 1 :][:2] == shown
    assert f"fit: data - {run_id(7)}" in lines(compare(ONE, chosen))
    assert "chosen by hand" not in lines(compare(ONE, ONE))
    assert comparison_json(compare(ONE, chosen))["chosen by hand"]["fit: data"]["right"] == run_id(7)


def lines(comparison: Comparison, *, everything: bool = False) -> list[str]:
    return [" ".join(line.split()) for line in comparison_text(comparison, everything=everything).splitlines()]


def test_to_be_read_there_is_what_differs_and_all_metrics() -> None:
    other = fit(parameters={"epochs": 3}, metrics={**FIT.metrics, "mAP": 0.5123456}, outputs={"model": OTHER})
    assert lines(compare(ONE, other)) == [
        f"{run_id(1)} {run_id(2)}",
        "parameters",
        "fit.epochs 1 3",
        "data",
        f"model {MODEL.digest[:12]} 3 files 1.5 MB {OTHER.digest[:12]} 3 files 1.5 MB",
        "metrics",
        "load.images 24 24",
        "fit.mAP 0.5 0.5123 +0.01235",
        "fit.device cpu cpu",
        "fit.ok True True",
        "fit.odd - -",
        "all other values are equal",
    ]
    everything = lines(compare(ONE, other), everything=True)
    assert f"commit {COMMIT[:12]} {COMMIT[:12]}" in everything
    assert "torch 2.13.0 2.13.0" in everything
    assert lines(compare(ONE, run_of(2, LOAD, FIT)))[-1] == "nothing differs"


LOADED = attempt("load", (), (artifact("data", "2"),), metrics={"images": 24})
SEEDED = {"epochs": 1, "seed": 3}


@pytest.mark.parametrize(
    ("after", "words"),
    [
        pytest.param(run_of(2, LOAD, FIT), [], id="nothing"),
        pytest.param(run_of(2, LOADED, FIT), ["data"], id="what was loaded"),
        pytest.param(run_of(2, LOAD, replace(FIT, chosen={"data": run_id(0)})), ["data"], id="an input chosen by hand"),
        pytest.param(run_of(2, failed("load")), [], id="what a failed step did not load"),
        pytest.param(fit(outputs={"model": OTHER}), [], id="what was made of it is no change of its own"),
        pytest.param(fit(parameters=SEEDED | {"epochs": 3}), ["epochs", "seed"], id="parameters"),
        pytest.param(fit(notebook_digest="f" * 64, code_digest="f" * 64), ["code"], id="code"),
        pytest.param(COMMITTED, [], id="a commit that changes no step"),
        pytest.param(fit(environment={"python": "3.13"}), ["environment"], id="the environment"),
        pytest.param(run_of(2, LOAD, LATER), [], id="a later failure"),
        pytest.param(
            run_of(2, LOADED, replace(FIT, parameters={"epochs": 3}, code_digest="f" * 64)),
            ["data", "epochs", "code"],
            id="several",
        ),
    ],
)
def test_changes_name_what_a_run_was_made_from_otherwise(after: RunManifest, words: list[str]) -> None:
    assert changes(ONE, after) == words


def test_values_are_shown_so_that_one_sees_how_they_differ() -> None:
    left, right = {"p": 0.0001, "q": ["a", "b"], "r": "x" * 60}, {"p": 0.00010001, "q": [], "r": "y" * 60}
    text = lines(compare(run_of(1, replace(FIT, parameters=left)), run_of(2, replace(FIT, parameters=right))))
    shown = {"fit.p 0.0001 0.00010001", "fit.q a, b none", f"fit.r {'x' * 47}… {'y' * 47}…"}
    assert shown <= set(text)


def test_over_real_runs(ran: Any) -> None:
    ran.commit()
    ran.step("first", "--set", "times=2")
    ran.step("second")
    text = ran.look("compare", "latest~1").out
    assert "  first.times    1 " in text
    assert "the files that differ are not known" in text, "the first was no checkout yet"
    (ran.root / "new.txt").write_text("x")
    ran.git("add", "-A")
    ran.git("commit", "-q", "-m", "more")
    ran.step("first")
    content = json.loads(ran.look("compare", "latest~1", "latest", "--json").out)
    assert content["metrics"]["first.length"] == {"left": 10, "right": 5, "differs": True, "difference": -5}
    assert content["files"] == [" new.txt | 1 +", " 1 file changed, 1 insertion(+)"]
    text = ran.look("compare", "latest~1", "latest").out
    assert "\nfiles that differ between the commits\n  new.txt | 1 +\n  1 file changed" in text
