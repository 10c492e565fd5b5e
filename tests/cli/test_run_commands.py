"""The commands of `python -m pipeline`: their arguments, errors and output. Their findings are tested by module."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.command import COMMANDS, run_guarded
from pipeline.runtime.garbage_collection import ABANDONED, SPARED

pytestmark = pytest.mark.usefixtures("in_process")

DEV = ".store/default/dev"
EACH = {name: [name] for name in ("status", "runs", "show", "graph", "export", "verify", "gc")}
EACH |= {name: [name, "second"] for name in ("log", "open")}
EACH |= {"compare": ["compare", "latest"], "lineage": ["lineage", "words"]}
OTHERS = {"get", "rerun"}  # they write, and are tested apart
# of pipeline.commands, tested there
OF_COMMANDS = {"collect", "containerize", "examine", "predict", "prelabel", "serve", "sweep"}


def test_every_command_prints_text_and_json_and_has_help(ran: Any) -> None:
    for name, arguments in EACH.items():
        text, content, help_text = ran.look(*arguments), ran.look(*arguments, "--json"), ran.look(name, "--help")
        assert (text.code, text.log, content.code, content.log, help_text.code) == (0, "", 0, "", 0)
        assert text.out.strip()
        assert "\x1b" not in text.out
        json.loads(content.out)
        for expected in ("--mode", "--config", "--json", COMMANDS[name][0].split()[0]):
            assert expected in help_text.out
    assert {*EACH, *OTHERS, *OF_COMMANDS} == COMMANDS.keys()


LOADED = """
import json, sys
from pipeline.cli.entry import run_command
from pipeline.commands import MODULES
codes = [run_command(arguments, modules=MODULES) for arguments in json.loads(sys.argv[1])]
heavy = {"torch", "papermill", "nbformat", "nbconvert", "nbclient", "rich", "cv2", "numpy", "matplotlib", "fsspec"}
heavy |= {"requests", "aiohttp", "pydantic", "bentoml", "av", "pipeline.client"}
sys.stderr.write(f"{sum(codes)} {heavy & set(sys.modules)}")
"""


def test_no_command_imports_anything_heavy(ran: Any) -> None:
    command_line = [sys.executable, "-c", LOADED, json.dumps([*EACH.values()])]
    done = subprocess.run(command_line, cwd=ran.root, capture_output=True, text=True, check=True)
    assert done.stderr == "0 set()"


def test_step_and_run_are_taken_in_either_order_and_by_any_of_their_names(ran: Any) -> None:
    old = ran.manifest()["run"]
    ran.step()
    for name in (old, "latest~1", old[-6:]):
        for command_name, key in (("log", "run"), ("open", "attempt")):
            for order in (("second", name), (name, "second")):
                assert json.loads(ran.look(command_name, *order, "--json").out)[key].startswith(old)
    assert "no step is named" in ran.look("log", "latest").log
    (ran.root / "steps" / "third.ipynb").unlink()
    assert ran.look("log", "latest~1", "third").code == 0, "a step that was removed since"


def test_a_named_config_selects_its_own_runs(ran: Any) -> None:
    (ran.root / "configs" / "other.yaml").write_text("name: other\n")
    own = ran.manifest()["run"]
    ran.step("first", "--config", "configs/other.yaml")
    assert ran.manifest()["run"] != own
    assert ran.manifest("--config", "configs/demo.yaml")["run"] == own
    assert json.loads(ran.look("log", "first", "--config", "configs/demo.yaml", "--json").out)["run"] == own
    content = json.loads(ran.look("compare", own, "--config", "configs/other.yaml", "--json").out)
    assert (content["left"], content["right"]) == (own, ran.manifest()["run"])


WRONG = {
    "step": (["log", "scond"], 2, "did you mean 'second'?"),
    "no step": (["log"], 2, "no step is named"),
    "run": (["log", "second", "zzz"], 1, "there is no run 'zzz'"),
    "nothing to compare": (["compare"], 2, ""),
    "output": (["export", "--output", "no/such/folder/x"], 2, "there is no folder for the output"),
    "output folder": (["export", "--output", "steps"], 2, "the output is a folder"),
    "config": (["runs", "--config", "configs/wrong.yaml"], 2, "there is no such key"),
    "artifact": (["get", "bok", "somewhere"], 1, "did you mean 'book'?"),
    "command": (["shw"], 2, ""),
    "no command": ([], 2, ""),
}


def test_a_wrong_call_is_refused_with_the_nearest_right_one(ran: Any) -> None:
    ran.step("first")
    (ran.root / "configs" / "wrong.yaml").write_text("name: toy\nparamters: {}\n")
    for name, (arguments, code, message) in WRONG.items():
        outcome = ran.look(*arguments)
        assert (outcome.code, outcome.out) == (code, ""), name
        assert message in outcome.log, name


def test_what_the_operating_system_refuses_reads_like_every_error(caplog: pytest.LogCaptureFixture) -> None:
    def fill_the_disk() -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "/full/file")

    assert run_guarded(fill_the_disk) == 1
    assert caplog.messages == ["error: no space left on device\n  where:    /full/file"]


def test_without_a_run_every_command_names_the_command_that_makes_one(toy: Any) -> None:
    for arguments in (*(EACH[name] for name in ("show", "status", "log", "lineage", "export")), ["get", "book", "new"]):
        toy.look(*arguments, "--mode", "prod").fails("there is no prod run yet", "python step.prod.py")


def test_an_export_is_a_file_of_lines_or_nothing(ran: Any, tmp_path: Path) -> None:
    path = tmp_path / "statements.jsonl"
    assert ran.look("export", "--output", str(path)).out == f"4 lines in {path}\n"
    assert path.read_text() == ran.look("export").out
    assert [json.loads(line) for line in path.read_text().splitlines()] == json.loads(ran.look("export", "--json").out)
    notebook = ran.root / "steps" / "first.ipynb"
    notebook.write_text(notebook.read_text().replace("text * times", "nothing_such"))
    ran.step("first")
    outcome = ran.look("export")
    assert (outcome.code, outcome.out) == (0, "")


# --- get -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["local", "s3"])
def twice(request: pytest.FixtureRequest, toy: Any) -> Any:
    """A project with two runs, with its store on this machine or on S3."""
    if request.param == "s3":
        config = toy.root / "configs" / "demo.yaml"
        config.write_text(f"{config.read_text()}store: {request.getfixturevalue('s3')}/{secrets.token_hex(6)}\n")
    for text in ("one", "two"):
        assert toy.step("--set", f"first.text={text}").code == 0
    return toy


def test_an_artifact_is_laid_out_by_any_of_its_names_as_files_that_are_ones_own(twice: Any) -> None:
    old, new = (row["run"] for row in twice.runs())
    digest = twice.manifest(old)["steps"]["third"]["outputs"]["book"]["digest"]
    url = twice.manifest(old)["steps"]["third"]["outputs"]["book"]["url"]
    names = {"book": "two", f"{new}/book": "two", "latest~1/book": "one", f"{old[-8:]}/book": "one"}
    names |= {f"book/{digest[:8]}": "one", digest[:8]: "one", url: "one"}
    for number, (name, text) in enumerate(names.items()):
        outcome = twice.look("get", name, f"laid out/{number}")
        assert outcome.code == 0, outcome.log
        assert outcome.out.endswith(f"1 file, 0.0 MB, in 'laid out/{number}'\n"), outcome.out
        files = [path for path in (twice.root / f"laid out/{number}").rglob("*") if path.is_file()]
        assert [path.relative_to(twice.root).as_posix() for path in files] == [f"laid out/{number}/deep/book.txt"]
        assert files[0].read_text() == text, name
        assert (files[0].stat().st_nlink, os.access(files[0], os.W_OK)) == (1, True)
        files[0].write_text("mine")
    assert twice.look("verify").code == 0, "a copy is nothing of the store's"
    content = twice.json("get", "latest/book", "as json")
    assert (content["name"], content["files"], content["folder"]) == ("book", 1, str(twice.root / "as json"))


WRONG_NAMES = {
    "latest/bok": (1, "did you mean 'book'?"),
    "bok": (1, "did you mean 'book'?"),
    "zzz/book": (1, "there is no run 'zzz'"),
    "book/abcdef": (1, "no run knows an artifact 'book/abcdef'"),
}


def test_a_wrong_name_or_folder_lays_out_nothing(ran: Any) -> None:
    for name, (code, message) in WRONG_NAMES.items():
        outcome = ran.look("get", name, "new")
        assert (outcome.code, outcome.out, message in outcome.log) == (code, "", True), outcome.log
        assert not (ran.root / "new").exists()
    for place in ("steps", "step.dev.py"):
        before = files_below(ran.root / place)
        ran.look("get", "book", place).fails("expected: a new or empty folder", code=2)
        assert files_below(ran.root / place) == before
    (ran.root / "new").mkdir()
    damage(ran, "book", b"HALLO")
    ran.look("get", "book", "new").fails("stored bytes are not what was recorded", "run third again with --force")
    assert list((ran.root / "new").iterdir()) == []
    assert [path.name for path in ran.root.iterdir() if path.name.startswith(".new")] == [], "no draft is left"


def files_below(place: Path) -> list[Path]:
    return sorted(place.rglob("*"))


# --- verify ----------------------------------------------------------------------------------------------------------


def damage(toy: Any, entity: str, content: bytes | None, run: str = "latest") -> str:
    """Change, or remove, the first file of what a run has of an entity; its digest."""
    steps = toy.manifest(run)["steps"].values()
    [digest] = [step["outputs"][entity]["digest"] for step in steps if entity in step["outputs"]]
    sha256 = re.findall(r"[0-9a-f]{64}", (toy.root / DEV / "artifacts" / entity / digest).read_text())[0]
    place = toy.root / DEV / "objects" / sha256[:2] / sha256
    place.chmod(0o644)
    place.write_bytes(content) if content is not None else place.unlink()
    return str(digest)


def test_damage_is_named_and_its_remedy_typed_mends_it(ran: Any) -> None:
    run = ran.manifest()["run"]
    assert ran.look("verify").out == "all is as it was recorded: 1 run, 4 artifacts, 2 files hashed\n"
    digest = damage(ran, "words", b"HALLO")
    outcome = ran.look("verify")
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    assert lines[0] == "4 findings in 1 run, 4 artifacts, 1 file hashed", "all four hold the very same bytes"
    found = f"  words/{digest[:12]}: damaged or missing: text.txt\n    in run  {run}\n"
    assert f"{found}    do      python step.dev.py second --force --run {run}\n" in outcome.out
    remedies = [line.removeprefix("    do      ") for line in lines if line.startswith("    do ")]
    for remedy in dict.fromkeys(remedies):
        assert ran.step(*shlex.split(remedy)[2:]).code == 0
    assert ran.look("verify").code == 0
    assert ran.manifest()["run"] == run


@pytest.mark.slow
def test_where_the_code_has_changed_since_a_rerun_mends_it(ran: Any) -> None:
    ran.commit()
    assert ran.step("--force").code == 0
    run = ran.manifest()["run"]
    cells = ran.cells_of("first")
    ran.notebook("first", [*cells[:4], ("", 'text = "another"'), *cells[4:]])
    damage(ran, "letters", b"rotten")
    assert ran.look("verify", run).out.splitlines()[-1].endswith("python -m pipeline rerun RUN --reload")
    assert ran.look("rerun", run, "--reload").code == 0
    assert ran.look("verify").code == 0


def test_one_run_or_all_of_the_store_is_verified_and_many_runs_are_named_in_short(ran: Any) -> None:
    old = ran.manifest()["run"]
    for _ in range(6):
        assert ran.step("--set", "first.text=other", "--set", "second.loud=true").code == 0
    new = ran.manifest()["run"]
    damage(ran, "words", b"rotten", new)
    assert ran.look("verify", old).code == 0
    content = json.loads(ran.look("verify", new, "--json").out)
    assert (content["runs"], [finding["runs"] for finding in content["findings"]]) == (1, [[new]] * 3)
    outcome = ran.look("verify")
    assert "in 7 runs" in outcome.out
    [named] = {line for line in outcome.out.splitlines() if line.startswith("    in run  ")}
    assert named.endswith(" and 2 more")
    assert named.count("Z-") == 4


# --- gc --------------------------------------------------------------------------------------------------------------


def grown_old(toy: Any) -> None:
    """As if all of it had happened long ago."""
    past = time.time() - 2 * SPARED
    for path in (toy.root / ".store").rglob("*"):
        if path.is_file():
            if path.suffix == ".json" and "runs" in path.parts:
                path.chmod(0o644)
                path.write_text(re.sub(r"\b20\d\d-(?=\d\d-\d\dT)", "2001-", path.read_text()))
            os.utime(path, (past, past))


def files(toy: Any) -> set[str]:
    return {str(path.relative_to(toy.root)) for path in (toy.root / ".store").rglob("*") if path.is_file()}


def test_old_runs_go_only_with_yes(ran: Any) -> None:
    old = ran.manifest()["run"]
    assert ran.step("--set", "first.text=other").code == 0
    new = ran.manifest()["run"]
    grown_old(ran)
    before = files(ran)
    assert ran.look("gc", "--yes").out == "2 runs kept, 0 dropped\nthere is nothing to free\n", (
        "without --keep all stay"
    )
    lines = ran.look("gc", "--keep", "1").out.splitlines()
    assert lines[:2] == ["1 run kept, 1 dropped", f"  dropped  {old}"]
    kinds = ["records of dropped runs", "artifacts", "file contents"]
    assert [line.rsplit(maxsplit=3)[0].strip() for line in lines[2:-1]] == kinds
    assert lines[-1].endswith("do it with the same command and --yes")
    plan = json.loads(ran.look("gc", "--keep", "1", "--json").out)
    assert (plan["kept"], plan["dropped"], plan["removed"]) == ([new], [old], None)
    assert files(ran) == before
    done = json.loads(ran.look("gc", "--keep", "1", "--yes", "--json").out)
    planned = {info["key"] for kind in ("records", "markers", "objects", "scraps") for info in plan[kind]}
    assert set(done["removed"]) == planned
    assert {f"{DEV}/{key}" for key in planned} == before - files(ran)
    assert plan["bytes"] == sum(info["size"] for kind in ("records", "markers", "objects") for info in plan[kind])
    assert [row["run"] for row in ran.runs()] == [new]
    assert ran.look("verify").code == 0
    assert ran.states() == dict.fromkeys(("first", "second", "third"), "done")


def test_what_killed_attempts_left_behind_goes_with_it(ran: Any) -> None:
    left = ran.root / ".cache" / "resume" / "second.abc"
    left.mkdir(parents=True)
    (left / "epoch.pth").write_bytes(b"x" * 3_000_000)
    assert ran.look("gc").out.splitlines()[-1] == "there is nothing to free"
    past = time.time() - 2 * ABANDONED
    for path in (left / "epoch.pth", left):
        os.utime(path, (past, past))
    lines = ran.look("gc").out.splitlines()
    assert lines[1] == f"  left by a killed attempt: {left}"
    assert lines[-1] == "this would free 3.0 MB; do it with the same command and --yes"
    assert left.is_dir()
    assert ran.look("gc", "--yes").out.splitlines()[-1] == "removed 0 files and 1 folder, 3.0 MB"
    assert not left.exists()
