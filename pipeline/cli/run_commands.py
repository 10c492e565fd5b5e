"""The command line that looks at what was run: `python -m pipeline COMMAND`.

A command is one function below `command(...)`, which names it, says what it is for and which arguments it takes. It
gets a `Look` and returns an `Answer`. What only one command needs is imported in it, so that none waits for another.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline.cli import printing
from pipeline.cli.command import guarded, say
from pipeline.cli.run_command import COMMANDS, Answer, Look, argument, command
from pipeline.errors import UsageError
from pipeline.runtime.project import DEFAULT_CONFIG, check_name
from pipeline.runtime.resolving import find_artifact, find_attempt, makers

RUN = argument("run", nargs="?", help="the newest by default; a part of its id will do, or latest~1")


def inspect(arguments: Sequence[str] | None = None, root: Path | None = None) -> int:
    """Look at runs; what `python -m pipeline` calls.

    Args:
        arguments: Of the command line; the process's own by default.
        root: The project's folder; the one the user stands in by default.

    Returns:
        The exit code.
    """
    return guarded(lambda: _answer(_parser().parse_args(arguments), root))


def _answer(asked: argparse.Namespace, root: Path | None) -> int:
    answer = COMMANDS[asked.command].act(Look(asked, root or _project_root(Path.cwd())))
    text = json.dumps(answer.content, indent=2, ensure_ascii=False) if asked.json else answer.text
    if text:
        say(text)
    return answer.code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Look at what was run.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--mode", choices=("dev", "prod"), default="dev", help="whose runs (dev)")
    common.add_argument("--config", metavar="FILE", help=f"whose store and runs; {DEFAULT_CONFIG}'s store, all runs")
    common.add_argument("--json", action="store_true", help="for programs")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, one in COMMANDS.items():
        own = commands.add_parser(name, parents=[common], help=one.help, description=one.help)
        for names, options in one.arguments:
            own.add_argument(*names, **options)
    return parser


def _project_root(here: Path) -> Path:
    for folder in (here, *here.parents):
        if (folder / "steps").is_dir() and (folder / "step.dev.py").is_file():
            return folder
    raise UsageError("this is not a project's folder", where=here, expected="a folder with steps/ and step.dev.py")


# --- the commands ----------------------------------------------------------------------------------------------------


@command("status", "each step of a run: done, stale, failed, killed, and why", RUN)
def _status(look: Look) -> Answer:
    from pipeline.runtime.status import run_status

    manifest = look.run(look.asked.run)
    states = run_status(look.project_of(manifest), manifest)
    rows = [(state.step, state.state, state.why) for state in states]
    return Answer(
        {"run": manifest.run, "steps": [asdict(state) for state in states]},
        f"run {manifest.run}  {manifest.mode}  {manifest.pipeline}\n{printing.table(rows, '  ')}",
    )


@command("runs", "all runs, oldest first")
def _runs(look: Look) -> Answer:
    runs = look.project.runs.every()
    return Answer([printing.run_brief(*run) for run in runs], printing.runs_table(runs, look.steps))


@command("show", "one run's manifest", RUN)
def _show(look: Look) -> Answer:
    manifest = look.run(look.asked.run)
    return Answer(manifest.to_json(), printing.run_text(manifest))


@command("graph", "the steps and what passes between them, as mermaid")
def _graph(look: Look) -> Answer:
    return Answer(printing.graph(look.steps), printing.mermaid(look.steps))


@command(
    "log",
    "what a step's notebook printed as it ran, cell by cell",
    argument("step", help="a step's name"),
    RUN,
    argument("--attempt", type=int, metavar="N", help="which attempt at it; the newest by default"),
)
def _log(look: Look) -> Answer:
    from pipeline.runtime.transcript import read_transcript, transcript_text

    manifest, step = look.run(look.asked.run), look.asked.step
    check_name("step", step, dict.fromkeys([*look.steps, *(record.step for record in manifest.attempts)]))
    record = find_attempt(manifest, step, look.asked.attempt)
    transcript = read_transcript(look.project, manifest, record)
    return Answer(asdict(transcript), transcript_text(transcript, record))


@command(
    "compare",
    "two runs side by side: what differs, and all metrics",
    argument("left", help="a run: a part of its id, or latest~1"),
    argument("right", nargs="?", help="another; the newest by default"),
    argument("--all", action="store_true", help="what is the same, too"),
)
def _compare(look: Look) -> Answer:
    from pipeline.cli.comparison_printing import comparison_text
    from pipeline.runtime.comparison import compare, comparison_json
    from pipeline.runtime.repository import changed_between

    left, right = look.run(look.asked.left), look.run(look.asked.right)
    commits = [str(run.code.get("commit", "")) for run in (left, right)]
    comparison = compare(left, right, changed_between(look.root, *commits))
    return Answer(comparison_json(comparison), comparison_text(comparison, everything=look.asked.all))


@command(
    "lineage",
    "what an artifact came from and what was made from it, over all runs",
    argument("artifact", help="an entity, ENTITY/DIGEST, a digest of 6 digits or more, or an artifact's URL"),
    argument("--mermaid", action="store_true", help="as a mermaid flowchart"),
)
def _lineage(look: Look) -> Answer:
    from pipeline.cli.lineage_printing import lineage_mermaid, lineage_text
    from pipeline.runtime.lineage import lineage_json, trace

    manifests = look.project.runs.readable()
    if not manifests:
        look.run(None)  # says that there is none
    lineage = trace(find_artifact(look.asked.artifact, manifests), manifests)
    draw = lineage_mermaid if look.asked.mermaid else lineage_text
    return Answer(lineage_json(lineage), draw(lineage))


@command(
    "export",
    "a run for other tools: OpenLineage events, or in-toto Statements to be signed; a JSON object a line",
    RUN,
    argument("--format", choices=("openlineage", "intoto"), required=True, help="events, or one Statement a success"),
    argument("--output", metavar="FILE", type=Path, help="instead of the screen"),
)
def _export(look: Look) -> Answer:
    from pipeline.runtime.openlineage import events
    from pipeline.runtime.provenance import statement
    from pipeline.runtime.repository import source_url

    manifest, source = look.run(look.asked.run), source_url(look.root)
    if look.asked.format == "openlineage":
        objects = events(manifest, look.project.runs.store.url, source)
    else:
        objects = [statement(*made, source) for made in makers(look.project.runs, manifest)]
    lines = [json.dumps(one, ensure_ascii=False) for one in objects]
    if look.asked.output is None:
        return Answer(objects, "\n".join(lines))
    look.asked.output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return Answer(objects, f"{len(lines)} lines in {look.asked.output}")


@command(
    "verify",
    "whether every record, and every byte that runs refer to, is as it was recorded",
    argument("run", nargs="?", help="only what one run refers to"),
)
def _verify(look: Look) -> Answer:
    from pipeline.cli.maintenance_printing import verification_text
    from pipeline.runtime.verification import verify

    runs = look.project.runs
    found = verify(runs, [look.run(look.asked.run).run] if look.asked.run else runs.ids())
    return Answer(asdict(found), verification_text(found), code=1 if found.findings else 0)


@command(
    "gc",
    "remove what no kept run refers to; without --yes only say what that would be",
    argument("--keep", type=int, metavar="N", help="of each pipeline keep the newest N runs; all by default"),
    argument("--yes", action="store_true", help="do it"),
)
def _gc(look: Look) -> Answer:
    from pipeline.cli.maintenance_printing import folder_size, garbage_json, garbage_text
    from pipeline.runtime.store_garbage import abandoned, collect, find_garbage

    asked, garbage = look.asked, find_garbage(look.project.runs, keep=look.asked.keep)
    left = {path: folder_size(path) for path in abandoned(look.project.resume)}
    removed = collect(look.project.runs, garbage, left) if asked.yes else None
    options = [("--mode prod", asked.mode == "prod"), (f"--config {shlex.quote(asked.config or '')}", asked.config)]
    options.append((f"--keep {asked.keep}", asked.keep is not None))
    command = " ".join(["python -m pipeline gc", *(option for option, given in options if given)])
    text = garbage_text(garbage, left, removed, keep=asked.keep, command=command)
    return Answer(garbage_json(garbage, left, removed), text)


@command(
    "open",
    "a step's notebook as it ran, with that run's inputs and parameters, ready for Jupyter",
    argument("run", help="a part of its id, or latest"),
    argument("step", help="a step's name"),
    argument("--attempt", type=int, metavar="N", help="which attempt at it; the newest by default"),
)
def _open(look: Look) -> Answer:
    from pipeline.cli.maintenance_printing import reopened_text
    from pipeline.runtime.reopening import reopen

    manifest, step = look.run(look.asked.run), look.asked.step
    check_name("step", step, dict.fromkeys([*look.steps, *(record.step for record in manifest.attempts)]))
    opened = reopen(look.project, manifest, find_attempt(manifest, step, look.asked.attempt))
    return Answer({**asdict(opened), "notebook": str(opened.notebook)}, reopened_text(opened))


@command(
    "rerun",
    "a run again: the same commit, differences, config and inputs, in a git worktree of its own",
    argument("run", help="a part of its id, or latest"),
    argument("--reload", action="store_true", help="read the outside world again, too, which may have changed"),
)
def _rerun(look: Look) -> Answer:
    from pipeline.cli.maintenance_printing import rerun_text
    from pipeline.runtime.rerunning import rerun

    manifest = look.run(look.asked.run)
    done = rerun(look.project, manifest, reload=look.asked.reload)
    return Answer({**asdict(done), "is_same": done.is_same}, rerun_text(done))
