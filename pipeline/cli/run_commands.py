"""The commands of `python -m pipeline`: look at runs, check their store, clean it up, and repeat runs.

Modules that only one command needs are imported in its function, so that no command waits for another's imports.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from pipeline.cli import printing
from pipeline.cli.command import CommandContext, CommandResult, argument, check_file_to_write, command
from pipeline.cli.printing import count, megabytes, table
from pipeline.errors import UsageError
from pipeline.runtime.manifest import GOOD
from pipeline.runtime.project import mode_option, with_config_of
from pipeline.runtime.resolving import find_artifact, find_attempt, find_stored, makers

RUN = argument("run", nargs="?", help="a run's id, its beginning or end, latest or latest~1; the newest by default")
STEP = argument("step", nargs="?", metavar="step", help="a step's name")
ATTEMPT = argument("--attempt", type=int, metavar="N", help="the number of the attempt; the newest by default")
SHOWN_RUNS = 4  # in a finding


@command("status", "the state of each step of a run: done, stale, failed or killed, and why", RUN)
def _status(context: CommandContext) -> CommandResult:
    from pipeline.runtime.status import run_status

    manifest = context.find_run(context.arguments.run)
    states = run_status(with_config_of(manifest, context.root, context.steps), manifest)
    rows = [(step, *state) for step, state in states.items()]
    return CommandResult(
        {"run": manifest.run, "steps": [dict(zip(("step", "state", "why"), row, strict=True)) for row in rows]},
        f"run {manifest.run}  {manifest.mode}  {manifest.pipeline}\n{table(rows, '  ')}",
    )


@command(
    "runs",
    "all runs side by side, newest first: state, metric, gate, and what changed since the run before",
    argument("--sort", metavar="COLUMN", help="sort by a column: the youngest or the greatest first"),
    argument(
        "--filter",
        metavar="COLUMN=VALUE",
        action="append",
        default=[],
        help="only runs with this value: status=failed, pipeline=demo, changed=epochs, 'age<7d', 'mAP>0.7'; "
        "given several times, all must hold",
    ),
    argument("--csv", action="store_true", help="print CSV, with all values in full"),
)
def _runs(context: CommandContext) -> CommandResult:
    from pipeline.cli.run_rows import filter_rows, metric_name, row_json, run_rows, sort_rows, with_ends
    from pipeline.cli.runs_table import runs_csv, runs_table

    arguments = context.arguments
    stores = [(project.mode, project.runs) for project in context.projects]
    found = [(mode, *each) for mode, runs in stores for each in with_ends(runs.store, runs.every())]
    rows = run_rows(found, list(context.steps))
    metric = metric_name(rows)
    shown = filter_rows(rows, arguments.filter, metric)
    shown = sort_rows(shown, arguments.sort, metric) if arguments.sort else shown
    empty = "no run is like that" if rows else "no runs yet"
    text = runs_csv(shown, metric) if arguments.csv else runs_table(shown, metric) if shown else empty
    return CommandResult([row_json(row) for row in shown], text)


@command("graph", "the steps and the entities that pass between them, as mermaid")
def _graph(context: CommandContext) -> CommandResult:
    return CommandResult(printing.graph_json(context.steps), printing.graph_mermaid(context.steps))


@command("log", "the output of a step's notebook, cell by cell; STEP and RUN in either order", STEP, RUN, ATTEMPT)
def _log(context: CommandContext) -> CommandResult:
    from pipeline.runtime.transcript import read_transcript, transcript_text

    step, manifest = context.find_step_and_run()
    record = find_attempt(manifest, step, context.arguments.attempt)
    transcript = read_transcript(context.project, manifest, record)
    return CommandResult(asdict(transcript), transcript_text(transcript, record))


@command(
    "lineage",
    "the artifacts that an artifact was made from, and those made from it, over all runs",
    argument("artifact", help="an entity, ENTITY/DIGEST, a digest of 6 digits or more, or an artifact's URL"),
)
def _lineage(context: CommandContext) -> CommandResult:
    from pipeline.cli.lineage import lineage_json, lineage_text, trace

    manifests = context.project.runs.readable()
    if not manifests:
        context.find_run(None)  # raises the error for a store without runs
    lineage = trace(find_artifact(context.arguments.artifact, manifests), manifests)
    return CommandResult(lineage_json(lineage), lineage_text(lineage))


@command(
    "get",
    "lay out an artifact as a plain folder",
    argument("artifact", metavar="ARTIFACT", help="RUN/ENTITY, an entity, ENTITY/DIGEST, a digest, or a URL"),
    argument("folder", metavar="FOLDER", type=Path, help="a new or empty folder"),
)
def _get(context: CommandContext) -> CommandResult:
    folder = context.arguments.folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("there is something in the folder's place", where=folder, expected="a new or empty folder")
    artifact = find_stored(context.project, context.arguments.artifact, pipeline=context.pipeline)
    context.project.runs.store.get(artifact, folder)
    text = [
        f"{artifact.name} {artifact.digest[:12]}, made by {artifact.made_by or 'an unknown attempt'}",
        f"{count(artifact.files, 'file')}, {megabytes(artifact.size)}, in {_typed_path(folder)}",
    ]
    return CommandResult({**asdict(artifact), "folder": str(folder)}, "\n".join(text))


@command(
    "export",
    "the provenance of a run and the outcome of its quality gate, one JSON object a line, to be signed",
    RUN,
    argument("--format", choices=("intoto",), default="intoto", help="in-toto Statements (intoto), the only format"),
    argument("--output", metavar="FILE", type=Path, help="write to a file instead of the screen"),
)
def _export(context: CommandContext) -> CommandResult:
    from pipeline.runtime.git import source_url
    from pipeline.runtime.provenance import outcome_statement, statement

    output = context.arguments.output
    if output is not None:
        check_file_to_write(output)
    manifest, source = context.find_run(context.arguments.run), source_url(context.root)
    made = makers(context.project.runs, manifest)
    statements = [statement(run, record, source) for run, record in made]
    below_gate = [(manifest, each) for each in manifest.attempts if each.is_whole and each.status not in GOOD]
    statements += [outcome_statement(run.mode, record) for run, record in (*made, *below_gate) if record.judged]
    lines = {json.dumps(each, ensure_ascii=False): each for each in statements}  # the same gate, passed again, is one
    content = list(lines.values())
    if output is None:
        return CommandResult(content, "\n".join(lines))
    output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return CommandResult(content, f"{len(lines)} lines in {output}")


@command(
    "verify",
    "check every record, and every byte that runs refer to",
    argument("run", nargs="?", help="check only what one run refers to"),
)
def _verify(context: CommandContext) -> CommandResult:
    from pipeline.runtime.verification import verify

    runs, name = context.project.runs, context.arguments.run
    found = verify(runs, [context.find_run(name).run] if name else runs.ids())
    checked = f"{count(found.runs, 'run')}, {count(found.artifacts, 'artifact')}, {count(found.files, 'file')} hashed"
    if not found.findings:
        return CommandResult(asdict(found), f"all is as it was recorded: {checked}")
    lines = [f"{count(len(found.findings), 'finding')} in {checked}"]
    for finding in found.findings:
        more = f" and {len(finding.runs) - SHOWN_RUNS} more" if len(finding.runs) > SHOWN_RUNS else ""
        lines += [
            f"  {finding.where}: {finding.what}",
            f"    in run  {', '.join(finding.runs[:SHOWN_RUNS])}{more}",
            f"    do      {finding.remedy}",
        ]
    lines.append("where a step's code has changed since, use: python -m pipeline rerun RUN --reload")
    return CommandResult(asdict(found), "\n".join(lines), code=1)


@command(
    "gc",
    "remove what no kept run refers to; without --yes, only list it",
    argument("--keep", type=int, metavar="N", help="keep the newest N runs of each pipeline; all by default"),
    argument("--yes", action="store_true", help="remove it"),
)
def _gc(context: CommandContext) -> CommandResult:
    from pipeline.runtime.garbage_collection import abandoned, collect, find_garbage

    arguments, runs = context.arguments, context.project.runs
    garbage, left = find_garbage(runs, keep=arguments.keep), abandoned(context.project.resume)
    size = sum(info.size for info in garbage.files)
    size += sum(file.stat().st_size for path in left for file in path.rglob("*") if file.is_file())
    removed = [info.key for info in collect(runs, garbage, left)] if arguments.yes else None
    content = {**asdict(garbage), "left_behind": [str(path) for path in left], "bytes": size, "removed": removed}
    lines = [f"{count(len(garbage.kept), 'run')} kept, {len(garbage.dropped)} dropped"]
    lines += [f"  dropped  {run}" for run in garbage.dropped]
    kinds = {
        "records of dropped runs": garbage.records,
        "artifacts": garbage.markers,
        "file contents": garbage.objects,
        "unfinished or damaged": garbage.scraps,
    }
    rows = [(kind, len(files), megabytes(sum(file.size for file in files))) for kind, files in kinds.items() if files]
    lines += [table(rows, "  ")] if rows else []
    lines += [f"  left by a killed attempt: {path}" for path in left]
    if not garbage.files and not left:
        lines.append("there is nothing to free")
    elif removed is None:
        lines.append(f"this would free {megabytes(size)}; do it with the same command and --yes")
    else:
        folders = f" and {count(len(left), 'folder')}" if left else ""
        lines.append(f"removed {count(len(removed), 'file')}{folders}, {megabytes(size)}")
        if kept := len(garbage.files) - len(removed):
            lines.append(f"{count(kept, 'file')} came into use meanwhile, and stay")
    return CommandResult(content, "\n".join(lines))


@command(
    "open",
    "a step's notebook with the inputs and parameters of its run, for Jupyter; STEP and RUN in either order",
    STEP,
    RUN,
    ATTEMPT,
)
def _open(context: CommandContext) -> CommandResult:
    from pipeline.runtime.reopening import reopen

    step, manifest = context.find_step_and_run()
    opened = reopen(context.project, manifest, find_attempt(manifest, step, context.arguments.attempt))
    notebook, programs = _typed_path(opened.notebook), Path(sys.executable).parent
    lines = [f"{opened.attempt} is in {notebook}"]
    if not opened.fresh:
        lines.append("it was opened before, and keeps your changes; remove it to start afresh")
    if opened.changed:
        again = f"python -m pipeline rerun {manifest.run}{mode_option(manifest.mode)}"
        lines.append(f"the step has changed since: its cells run with today's code; with the code of then: {again}")
    if not (programs / "jupyter-lab").exists():
        lines.append("JupyterLab is not installed yet: make .venv/.lab")
    as_root = " --allow-root" if os.geteuid() == 0 else ""  # JupyterLab refuses to run as root without it
    lines.append(f"{_typed_path(programs / 'jupyter')} lab --ip 127.0.0.1{as_root} {notebook}")
    return CommandResult({**asdict(opened), "notebook": str(opened.notebook)}, "\n".join(lines))


def _typed_path(path: Path) -> str:
    """A path as it is typed in the working directory."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


@command(
    "rerun",
    "repeat a complete run: the same commit, uncommitted changes, config and inputs, in a git worktree of its own",
    argument("run", help="a run's id, its beginning or end, latest or latest~1"),
    argument("--reload", action="store_true", help="read external sources again, too, which may have changed"),
)
def _rerun(context: CommandContext) -> CommandResult:
    from pipeline.runtime.rerunning import rerun

    done = rerun(context.project, context.find_run(context.arguments.run), reload=context.arguments.reload)
    lines = [f"run {done.new} is run {done.old} again"]
    lines += [f"  the same: {', '.join(done.same)}"] if done.same else []
    lines += [f"  differs: {', '.join(done.different)}"] if done.different else []
    lines.append(f"see also: python -m pipeline compare {done.old} {done.new}{mode_option(done.mode)}")
    return CommandResult({**asdict(done), "is_same": not done.different}, "\n".join(lines))
