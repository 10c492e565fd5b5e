"""`verify` and `gc` as they are typed: what they print, for people and programs, and how they end."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime.garbage_collection import ABANDONED, SPARED
from pipeline.runtime.store.artifact_store import YOUNG

pytestmark = pytest.mark.usefixtures("in_process")

DEV = ".store/default/dev"


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


def damage(toy: Any, entity: str, content: bytes | None, run: str = "latest") -> str:
    """Change, or remove, the first file of what a run has of an entity; its digest."""
    steps = toy.manifest(run)["steps"].values()
    [digest] = [step["outputs"][entity]["digest"] for step in steps if entity in step["outputs"]]
    index = (toy.root / DEV / "artifacts" / entity / digest).read_text()
    sha256 = re.findall(r"[0-9a-f]{64}", index)[0]
    place = toy.root / DEV / "objects" / sha256[:2] / sha256
    place.chmod(0o644)
    place.write_bytes(content) if content is not None else place.unlink()
    return str(digest)


# --- verify ----------------------------------------------------------------------------------------------------------


def test_when_all_is_well(ran: Any) -> None:
    outcome = ran.look("verify")
    assert (outcome.code, outcome.log) == (0, "")
    assert outcome.out == "all is as it was recorded: 1 run, 4 artifacts, 2 files hashed\n"
    content = json.loads(ran.look("verify", "--json").out)
    assert content == {"runs": 1, "artifacts": 4, "files": 2, "findings": []}


def test_damage_is_named_and_its_remedy_typed_mends_it(ran: Any) -> None:
    run = ran.manifest()["run"]
    digest = damage(ran, "words", b"HALLO")
    outcome = ran.look("verify")
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    assert lines[0] == "4 findings in 1 run, 4 artifacts, 1 file hashed", "all four hold the very same bytes"
    at = lines.index(f"  words/{digest[:12]}: damaged or missing: text.txt")
    assert lines[at + 1] == f"    in run  {run}"
    assert lines[at + 2] == f"    do      python step.dev.py second --force --run {run}"
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
    lines = ran.look("verify", run).out.splitlines()
    assert ran.step("first", "--force", "--run", run).code == 0
    assert ran.look("verify", run).code == 1
    assert lines[-1].endswith("python -m pipeline rerun RUN --reload")
    assert ran.look("rerun", run, "--reload").code == 0
    assert ran.look("verify").code == 0


def test_one_run_or_all_of_the_store(ran: Any) -> None:
    old = ran.manifest()["run"]
    assert ran.step("--set", "first.text=other", "--set", "second.loud=true").code == 0
    new = ran.manifest()["run"]
    damage(ran, "words", b"rotten", new)
    assert ran.look("verify", old).code == 0
    content = json.loads(ran.look("verify", new, "--json").out)
    assert (content["runs"], [finding["runs"] for finding in content["findings"]]) == (1, [[new]] * 3)
    whole = ran.look("verify", "--json")
    assert whole.code == 1
    assert json.loads(whole.out)["runs"] == 2
    assert "there is no run 'zzz'" in ran.look("verify", "zzz").log


def test_many_runs_are_named_in_short(ran: Any) -> None:
    for _ in range(5):
        assert ran.step().code == 0
    damage(ran, "letters", None)
    lines = ran.look("verify").out.splitlines()
    [named] = {line for line in lines if line.startswith("    in run  ")}
    assert named.endswith(" and 2 more")
    assert named.count("Z-") == 4


def test_records_that_cannot_be_read_are_findings_too(ran: Any) -> None:
    run = ran.manifest()["run"]
    attempts = ran.root / DEV / "runs" / run / "attempts"
    (attempts / "third.002.started.json").write_text('{"step": "thi')
    outcome = ran.look("verify")
    assert outcome.code == 1
    assert "a record was cut off while it was written, and does not count" in outcome.out
    (attempts / "third.002.started.json").write_text("[]\n")
    outcome = ran.look("verify", "--json")
    assert outcome.code == 1
    [finding] = json.loads(outcome.out)["findings"]
    assert finding["where"] == f"run {run}"


def test_a_store_without_runs(toy: Any) -> None:
    outcome = toy.look("verify")
    assert (outcome.code, outcome.out) == (0, "all is as it was recorded: 0 runs, 0 artifacts, 0 files hashed\n")


# --- gc --------------------------------------------------------------------------------------------------------------


def test_nothing_to_free(ran: Any) -> None:
    before = files(ran)
    for arguments in (["gc"], ["gc", "--yes"]):
        outcome = ran.look(*arguments)
        assert (outcome.code, outcome.log) == (0, "")
        assert outcome.out == "1 run kept, 0 dropped\nthere is nothing to free\n"
    assert files(ran) == before


def test_old_runs_go_only_with_yes(ran: Any) -> None:
    old = ran.manifest()["run"]
    assert ran.step("--set", "first.text=other").code == 0
    new = ran.manifest()["run"]
    grown_old(ran)
    before = files(ran)
    assert ran.look("gc").out == "2 runs kept, 0 dropped\nthere is nothing to free\n", "without --keep all stay"
    told = ran.look("gc", "--keep", "1")
    lines = told.out.splitlines()
    assert lines[0] == "1 run kept, 1 dropped"
    assert lines[1] == f"  dropped  {old}"
    assert [line.rsplit(maxsplit=3)[0].strip() for line in lines[2:-1]] == [
        "records of dropped runs",
        "artifacts",
        "file contents",
    ]
    assert lines[-1].endswith("do it with the same command and --yes")
    assert files(ran) == before
    plan = json.loads(ran.look("gc", "--keep", "1", "--json").out)
    assert (plan["kept"], plan["dropped"], plan["removed"], plan["young"]) == ([new], [old], None, [])
    assert files(ran) == before
    done = json.loads(ran.look("gc", "--keep", "1", "--yes", "--json").out)
    assert ran.look("gc", "--keep", "1", "--yes").out.splitlines()[-1] == "there is nothing to free"
    planned = {info["key"] for kind in ("records", "markers", "objects", "scraps") for info in plan[kind]}
    assert set(done["removed"]) == planned
    assert {f"{DEV}/{key}" for key in planned} == before - files(ran)
    assert plan["bytes"] == sum(info["size"] for kind in ("records", "markers", "objects") for info in plan[kind])
    assert [row["run"] for row in ran.runs()] == [new]
    assert ran.look("verify").code == 0
    assert ran.states() == dict.fromkeys(("first", "second", "third"), "done")


def test_young_runs_and_files_stay_and_are_told(ran: Any) -> None:
    assert ran.step("--set", "first.text=other").code == 0
    lost = ran.root / DEV / "objects" / "00" / ("0" * 64)
    lost.parent.mkdir(exist_ok=True)
    lost.write_bytes(b"x" * 2_000_000)
    lines = ran.look("gc", "--keep", "1").out.splitlines()
    assert lines == [
        "2 runs kept, 0 dropped",
        "  not yet: 1 file, written within 24 hours",
        "there is nothing to free",
    ]
    assert SPARED == 2 * YOUNG == 24 * 3600


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
    assert json.loads(ran.look("gc", "--json").out)["bytes"] == 3_000_000
    assert left.is_dir()
    outcome = ran.look("gc", "--yes")
    assert outcome.out.splitlines()[-1] == "removed 0 files and 1 folder, 3.0 MB"
    assert not left.exists()


def test_nothing_is_collected_while_a_record_cannot_be_read(ran: Any) -> None:
    run = ran.manifest()["run"]
    (ran.root / DEV / "runs" / run / "attempts" / "third.002.started.json").write_text("[]\n")
    before = files(ran)
    outcome = ran.look("gc", "--yes")
    assert (outcome.code, outcome.out) == (1, "")
    assert "a record cannot be read" in outcome.log
    assert files(ran) == before


def test_prod_has_its_own(toy: Any) -> None:
    toy.commit()
    assert toy.step("first", mode="prod").code == 0
    assert toy.look("gc").out == "0 runs kept, 0 dropped\nthere is nothing to free\n"
    assert toy.look("gc", "--mode", "prod").out.startswith("1 run kept")
    assert json.loads(toy.look("verify", "--mode", "prod", "--json").out)["runs"] == 1
    assert Path(toy.root / ".store/default/prod/runs").is_dir()
