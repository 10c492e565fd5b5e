"""Inputs that agree: what is refused, what is not, and what is named by hand."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import exam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from records import artifact, attempt, failed, reused, run_id, run_of

from pipeline.errors import StepError
from pipeline.runtime import execution
from pipeline.runtime.inputs import count_uses, inputs_agree, note_uses, require_agreement
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.runs import Runs
from pipeline.runtime.step import Step
from pipeline.runtime.store.artifact_store import Artifact, Store


def two(name: str) -> tuple[Artifact, Artifact]:
    return artifact(name, "a"), artifact(name, "b")


RAW, TRAIN, TEST, MODEL, SERVICE = (two(name) for name in ("raw", "train", "test", "model", "service"))
FIXED = artifact("fixed")
LOAD = [attempt("load", (), (raw, FIXED), attempt=i + 1) for i, raw in enumerate(RAW)]
PREP = [attempt("prep", (RAW[0],), (TRAIN[i], TEST[i]), attempt=i + 1) for i in range(2)]
LEARN = [attempt("learn", (TRAIN[i], FIXED), (MODEL[i],), attempt=i + 1) for i in range(2)]
PACK = [attempt("pack", (MODEL[i],), (SERVICE[i],), attempt=i + 1) for i in range(2)]
CHAIN = [LOAD[0], PREP[0], LEARN[0], PACK[0]]
OLD, MIXED = {"test": TEST[0], "service": SERVICE[0]}, {"test": TEST[1], "service": SERVICE[0]}
REUSED = [reused(LEARN[0], run_id(0)), reused(PACK[0], run_id(0))]
SAME_TEST = attempt("prep", (RAW[0],), (TRAIN[1], TEST[0]), attempt=2)
NEW_WEIGHTS = artifact("weights", "b")
LOADED_TWICE = [
    attempt("load", (), (RAW[0], artifact("weights"))),
    PREP[0],
    attempt("load", (), (RAW[1], NEW_WEIGHTS), attempt=2),
]


class _Kept(Runs):
    """Runs made by hand."""

    def __init__(self, *manifests: RunManifest, store: str = "memory://none") -> None:
        super().__init__(Store(store))
        self._manifests = manifests

    def readable(self) -> list[RunManifest]:
        return list(self._manifests)


@pytest.mark.parametrize(
    ("inputs", "own", "others"),
    [
        pytest.param(OLD, CHAIN, [], id="one run"),
        pytest.param(OLD, [*LOAD, *PREP, *LEARN, PACK[0]], [], id="all of the older attempt"),
        pytest.param(OLD, [*CHAIN, SAME_TEST], [], id="the newer attempt made the same test set"),
        pytest.param({"train": TRAIN[0], "fixed": FIXED}, [*LOAD, PREP[0]], [], id="the same bytes whoever made them"),
        pytest.param(OLD, [LOAD[0], PREP[0], PACK[0]], CHAIN[:3], id="the model is another run's, of the same sets"),
        pytest.param(OLD, [reused(each, run_id(0)) for each in CHAIN], [], id="reused from a run that is gone"),
        pytest.param({"service": SERVICE[0]}, [*PREP, *LEARN, *PACK], [], id="a single input"),
    ],
)
def test_inputs_agree(inputs: dict[str, Artifact], own: list[StepRecord], others: list[StepRecord]) -> None:
    run = run_of(9, *own)
    assert inputs_agree(_Kept(run_of(0, *others), run), run, inputs)


NO_RECORD = "in different attempts, or no record tells"


@pytest.mark.parametrize(
    ("inputs", "own", "others", "stale"),
    [
        pytest.param(MIXED, [LOAD[0], *PREP, LEARN[0], PACK[0]], [], "learn", id="the sets were made anew"),
        pytest.param(MIXED, [LOAD[0], *PREP, *LEARN, PACK[0]], [], "pack", id="and the model, but not the service"),
        pytest.param({"train": TRAIN[0], "weights": NEW_WEIGHTS}, LOADED_TWICE, [], "prep", id="other raw data"),
        pytest.param(MIXED, [LOAD[0], PREP[1], PACK[0]], CHAIN, "", id="a service of another run"),
        pytest.param(MIXED, [LOAD[0], PREP[1], *REUSED], CHAIN, "learn", id="reused"),
        pytest.param(MIXED, [LOAD[0], PREP[1]], [], "", id="no record of the service"),
        pytest.param(MIXED, [LOAD[0], PREP[1], PACK[0]], [], "", id="no record of the model"),
        pytest.param(MIXED, [LOAD[0], PREP[1], LEARN[0], PACK[0]], [], "learn", id="no record of the old sets"),
    ],
)
def test_inputs_that_disagree_are_refused_with_the_step_to_run(
    inputs: dict[str, Artifact], own: list[StepRecord], others: list[StepRecord], stale: str
) -> None:
    run = run_of(9, *own)
    runs = _Kept(run_of(0, *others), run)
    with pytest.raises(StepError) as caught:
        require_agreement(runs, run, "judge", inputs)
    problem = f"{stale} is out of date" if stale else NO_RECORD
    remedy = f"python step.dev.py {stale} --run {run_id(9)}" if stale else "run the steps before judge again"
    assert [text for text in (problem, remedy, " and ".join(inputs)) if text not in str(caught.value)] == []
    require_agreement(runs, run, "judge", inputs, chosen=[next(iter(inputs))])


# --- how often an input was used -------------------------------------------------------------------------------------


def judged(number: int, service: Artifact, **changes: Any) -> StepRecord:
    made = (artifact("result", str(number)),)
    return replace(attempt("judge", (TEST[0], service), made, attempt=number), **changes)


def test_uses_count_different_sets_of_other_inputs_and_outlive_their_runs(tmp_path: Path) -> None:
    gate = failed("judge", reads=(TEST[0], artifact("service", "c")), makes=(artifact("result", "c"),), attempt=4)
    runs = _Kept(
        run_of(1, judged(1, SERVICE[0]), judged(2, SERVICE[0])),
        run_of(2, reused(judged(1, SERVICE[1]), run_id(3)), judged(3, SERVICE[1]), gate),
        run_of(3, failed("judge", reads=(TEST[0], artifact("service", "d")))),
        store=str(tmp_path),
    )
    new = {"test": TEST[0], "service": artifact("service", "e")}
    assert count_uses(runs, "judge", new) == {"test": 4, "service": 1}, "a missed gate counts, no result does not"
    assert count_uses(runs, "judge", {"test": TEST[0], "service": SERVICE[0]}) == {"test": 3, "service": 1}
    assert count_uses(runs, "judge", {"test": TEST[1], "service": SERVICE[0]}) == {"test": 1, "service": 2}
    note_uses(runs, judged(5, artifact("service", "f")))
    assert count_uses(_Kept(store=str(tmp_path)), "judge", new)["test"] == 5


# --- through the commands --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exam_ran(tmp_path_factory: pytest.TempPathFactory, new_toy: Callable[..., Any]) -> Any:
    """Five steps that ran, their cells in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "execute", exam.in_process)
        toy = exam.make_exam(new_toy, tmp_path_factory.mktemp("exam") / "ran")
        assert toy.step().code == 0
    return toy


@pytest.fixture
def project(exam_ran: Any, tmp_path: Path, in_process: None) -> Any:
    """A copy for one test."""
    shutil.copytree(exam_ran.root, tmp_path / "exam")
    return replace(exam_ran, root=tmp_path / "exam")


def steps_of(toy: Any) -> dict[str, int]:
    return {name: step["attempt"] for name, step in toy.manifest()["steps"].items()}


def runs_of(toy: Any) -> Runs:
    return Runs(Store(str(toy.root / ".store/default/dev")))


def output(toy: Any, step: str, entity: str, run: str = "latest") -> str:
    digest: str = toy.manifest(run)["steps"][step]["outputs"][entity]["digest"]
    return digest


def break_notebook(toy: Any, step: str) -> None:
    path = toy.root / "steps" / f"{step}.ipynb"
    path.write_text(path.read_text().replace("import json\\n", "import json\\nif True: raise OSError\\n", 1))


def test_a_model_is_not_judged_on_a_split_that_it_was_not_trained_beside(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    opened = {"reads": exam.READS["judge"], "writes": exam.WRITES["judge"]}
    assert Step.open("judge", **opened).uses == {"test": 1, "service": 1}
    assert project.step("prep", "--set", "seed=1").code == 0
    before = steps_of(project)
    outcome = project.step("judge")
    assert (outcome.code, steps_of(project)) == (1, before), "no attempt was begun"
    assert "the inputs of judge do not agree: learn is out of date" in outcome.log
    with pytest.raises(StepError, match="learn is out of date"):
        Step.open("judge", **opened)
    runs = runs_of(project)  # a record of a version that let it through
    run = runs.newest()
    assert run is not None
    test, (judge,) = run.output("test"), run.of("judge")
    assert test is not None
    mixed = runs.start(run.run, replace(judge, attempt=0, inputs={**judge.inputs, "test": test}))
    runs.end(run.run, replace(mixed, notebook=judge.notebook))
    row = project.json("status")["steps"][-1]
    assert (row["state"], "its inputs do not agree" in row["why"]) == ("stale", True)
    project.look("open", "latest", "judge").fails("do not agree")
    for step in ("learn", "pack", "judge"):
        assert project.step(step).code == 0, step
    assert project.states() == dict.fromkeys(exam.READS, "done")


def test_a_test_set_of_another_run_or_store_is_asked_for_by_name(project: Any, tmp_path: Path) -> None:
    frozen, store = project.manifest()["run"], project.root / ".store/default/dev"
    shutil.copytree(store, tmp_path / "elsewhere")
    assert project.step("--set", "prep.seed=1").code == 0
    digest = output(project, "prep", "test", frozen)
    for typed in (frozen, "latest~1", frozen[-10:], f"test/{digest[:12]}", f"test/{digest}"):
        outcome = project.step("judge", "--input", f"test={typed}", "--force")
        assert outcome.code == 0, outcome.log
        source = f"test/{digest}" if digest[:12] in typed else frozen
        assert f"test {digest[:12]} was chosen by hand: {source}" in outcome.log.replace("\n      ", " ")
    record = project.manifest()["steps"]["judge"]
    assert (record["inputs"]["test"]["digest"], record["chosen"]) == (digest, {"test": f"test/{digest}"})
    assert record["uses"] == {"test": 2, "service": 2}
    assert f"chosen by hand: test/{digest}, used with 2 different others" in project.look("show").out
    assert "(chosen by hand)" in project.look("lineage", "result").out
    edges = project.json("lineage", "result")["edges"]
    assert {edge["from"].partition("/")[0] for edge in edges if edge["chosen_by_hand"]} == {"test"}
    row = project.json("status")["steps"][-1]
    assert (row["state"], row["why"]) == ("done", f"chosen by hand: test=test/{digest}")
    (store / f"artifacts/test/{digest}").unlink()
    url = f"{(tmp_path / 'elsewhere').as_uri()}/artifacts/test/{digest}"
    assert project.step("judge", "--input", f"test={url}", "--force").code == 0
    assert project.manifest()["steps"]["judge"]["inputs"]["test"]["digest"] == digest
    assert (store / f"artifacts/test/{digest}").is_file(), "copied"


def test_what_descends_from_an_input_named_by_hand_says_so_and_a_continued_run_keeps_it(project: Any) -> None:
    first = project.manifest()["run"]
    assert project.step("pack", "--input", f"model={first}").code == 0
    outcome = project.step("judge")
    record = project.manifest()["steps"]["judge"]
    assert (outcome.code, record["status"], record["chosen"]) == (0, "succeeded", {})
    assert record["chosen_before"] == {"pack: model": first}
    assert f"descend from pack: model, chosen by hand: {first}" in outcome.log.replace("\n      ", " ")
    assert project.step("--set", "prep.seed=1", "--input", f"test={first}").code == 0
    chosen = {name: step["chosen"] for name, step in project.manifest()["steps"].items() if step["chosen"]}
    assert chosen == {"judge": {"test": first}}
    assert project.step("pack", "--input", f"model={first}").code == 0
    project.step("judge").fails("pack is out of date")
    assert project.step("judge", "--input", "test=latest").code == 0, "by name it is taken"
    assert f"descends from pack: model, chosen by hand: {first}" in project.look("show").out

    digest = output(project, "prep", "test")
    break_notebook(project, "learn")
    typed = ["--set", "prep.seed=2", "--input", "test=latest"]
    assert project.step(*typed).code == 1
    failed_run = project.manifest()["run"]
    project.step(*typed).fails("continued")
    assert project.manifest()["run"] == failed_run
    assert project.manifest()["config"]["input"]["test"]["artifact"]["digest"] == digest, "what latest was at first"


def test_where_all_inputs_are_named_no_run_is_needed(project: Any) -> None:
    (project.root / "configs" / "other.yaml").write_text("name: other\n")
    run, judge = project.runs()[0]["run"], ["judge", "--config", "configs/other.yaml"]
    typed = [*judge, "--input", f"test={run}"]
    project.step(*typed).fails("judge needs service")
    project.step(*judge, "--input", "test=latest").fails("no dev run of 'other'", "step.dev.py --config configs/other")
    outcome = project.step(*typed, "--input", f"service={run}")
    assert outcome.code == 0, outcome.log
    assert [row["pipeline"] for row in project.runs()] == ["exam", "other"]
    exported = json.loads(project.look("export", "latest").out)
    given = exported["predicate"]["buildDefinition"]["externalParameters"]
    assert given["inputs"] == {"test": run, "service": run}


@pytest.mark.parametrize(
    ("typed", "code", "words"),
    [
        pytest.param(["test"], 2, "ENTITY=ARTIFACT|RUN", id="no value"),
        pytest.param(["tset=latest"], 2, "did you mean 'test'?", id="no such entity"),
        pytest.param(["model=latest"], 2, "there is no input 'model'", id="another step's"),
        pytest.param(["test=latest~7"], 1, "there is no run 'latest~7'", id="no such run"),
        pytest.param(["test=out/dev/exam/test"], 2, "'out/dev/exam/test' names no test", id="a folder"),
        pytest.param(["test=http://localhost:9/x"], 2, "the URL of an artifact in a store", id="another URL"),
        pytest.param(["test=test/3b0e"], 2, "test/DIGEST with 6 digits or more", id="too few digits"),
        pytest.param(["test=train/abcdef"], 2, "'train/abcdef' names no test", id="another entity"),
        pytest.param(["test=abcdef123"], 1, "there is no run 'abcdef123'", id="no such digest"),
        pytest.param(["test=test/abcdef123"], 1, "no run knows an artifact", id="no such version"),
        pytest.param([f"test=file:///nowhere/artifacts/test/{'0' * 64}"], 1, "/nowhere", id="no such place"),
    ],
)
def test_a_wrong_input_is_refused_before_anything_starts(project: Any, typed: list[str], code: int, words: str) -> None:
    before = steps_of(project)
    outcome = project.step("judge", *(word for one in typed for word in ("--input", one)))
    assert (outcome.code, steps_of(project)) == (code, before)
    assert words in outcome.log


def test_an_input_that_is_gone_is_refused(project: Any) -> None:
    (project.root / f".store/default/dev/artifacts/test/{output(project, 'prep', 'test')}").unlink()
    assert "is no longer in the store" in project.step("judge", "--input", "test=latest").log
    assert project.step("load", "--set", "seed=1").code == 0
    assert "has no test" in project.step("judge", "--input", "test=latest").log


def test_notes_stand_below_the_line_of_their_step(project: Any) -> None:
    words = "80 of 159 images excluded: no object of the chosen classes; " * 2
    outcome = project.step("prep", "--set", f"words={words.strip()}")
    lines = outcome.log.splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith("prep ")]
    notes = lines[at + 1 : at + 3]
    assert notes[0].startswith("    - 80 of 159 images excluded")
    assert " ".join(note.strip(" -") for note in notes) == words.strip(), "wrapped, and whole"
    assert all(len(note) <= 78 for note in notes)
    assert f"note: {words.strip()}" in project.look("show").out
    assert project.manifest()["steps"]["prep"]["notes"] == [words.strip()]


# --- any sequence of commands, any processes -------------------------------------------------------------------------


SEED = st.integers(0, 2)
STEP = st.sampled_from([*exam.READS, "prep", "learn", "judge", "judge"])
RUN = st.sampled_from(["", "", "latest", "latest~1", "latest~2"])
Command = tuple[str, str, int, str, str]
COMMANDS = st.one_of(
    st.tuples(st.just("all"), STEP, SEED, RUN, st.sampled_from(["", "0"])),
    st.tuples(st.sampled_from(["step", "step", "force"]), STEP, SEED, RUN, st.just("")),
    st.tuples(st.just("step"), STEP, SEED, st.just(""), st.just("")),
    st.tuples(st.just("input"), st.sampled_from(["learn", "pack", "judge"]), SEED, RUN, st.sampled_from("01")),
)


def arguments(command: Command, ids: list[str]) -> list[str]:
    """As typed: a parameter, the run to join, and an input of another run."""
    kind, step, seed, run, which = command
    back = int(run.partition("~")[2] or 0)
    place = ["--run", ids[-1 - min(back, len(ids) - 1)]] if run and ids and kind != "all" else []
    value = ["--set", f"{step}.seed={seed}"]
    if kind == "all":
        return [*value, *(["--input", f"{exam.READS['judge'][seed % 2]}=latest"] if which and ids else [])]
    named = exam.READS[step][int(which) % len(exam.READS[step])] if kind == "input" else ""
    chosen = ["--input", f"{named}={'latest' if run else ids[seed % len(ids)]}"] if named and ids else []
    return [step, *value, *place, *chosen, *(["--force"] if kind == "force" else [])]


@pytest.mark.parametrize("examples", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_no_sequence_of_commands_makes_a_record_whose_inputs_disagree(project: Any, examples: int) -> None:
    """And what is refused does disagree. The origin of a file is read from the file, not from the records."""

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(commands=st.lists(COMMANDS, min_size=2, max_size=7))
    def check(commands: list[Command]) -> None:
        with tempfile.TemporaryDirectory() as place:
            shutil.copytree(project.root, Path(place) / "exam")
            _check_sequence(replace(project, root=Path(place) / "exam"), commands)

    check()


def _check_sequence(toy: Any, commands: list[Command]) -> None:
    runs = runs_of(toy)
    for command in commands:
        typed = arguments(command, runs.ids())
        outcome = toy.step(*typed)
        if "do not agree" in outcome.log:
            step = outcome.log.partition("the inputs of ")[2].split()[0]
            run = runs.load(typed[typed.index("--run") + 1]) if "--run" in typed else runs.newest()
            assert run is not None
            named = {typed[typed.index("--input") + 1].partition("=")[0]} if "--input" in typed else set()
            inputs = {name: run.output(name) for name in exam.READS[step] if name not in named}
            assert not exam.agree(*(_content(runs, one) for one in inputs.values() if one)), outcome.log
    for manifest in runs.readable():
        for record in manifest.attempts:
            own = [one for name, one in record.inputs.items() if name not in record.chosen]
            assert exam.agree(*(_content(runs, one) for one in own)), f"{manifest.run}/{record.made_by}"


def _content(runs: Runs, one: Artifact) -> dict[str, Any]:
    (file,) = runs.store.index(one)
    made: dict[str, Any] = json.loads(runs.store.files.read(file.key))
    return made
