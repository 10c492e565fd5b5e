"""The commands that show runs: status, runs, show, graph, log, compare, lineage and export.

Modules that only one command needs are imported in its function, so that no command waits for another's imports.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from pipeline.cli import printing
from pipeline.cli.command import CommandContext, CommandResult, argument, command
from pipeline.runtime.resolving import find_artifact, find_attempt, makers

RUN = argument("run", nargs="?", help="a run's id, its beginning or end, latest or latest~1; the newest by default")
STEP = argument("step", nargs="?", metavar="step", help="a step's name")
ATTEMPT = argument("--attempt", type=int, metavar="N", help="the number of the attempt; the newest by default")


@command("status", "the state of each step of a run: done, stale, failed or killed, and why", RUN)
def _status(context: CommandContext) -> CommandResult:
    from pipeline.runtime.status import run_status

    manifest = context.find_run(context.arguments.run)
    states = run_status(context.project_of(manifest), manifest)
    rows = [(state.step, state.state, state.why) for state in states]
    return CommandResult(
        {"run": manifest.run, "steps": [asdict(state) for state in states]},
        f"run {manifest.run}  {manifest.mode}  {manifest.pipeline}\n{printing.table(rows, '  ')}",
    )


@command("runs", "all runs, oldest first")
def _runs(context: CommandContext) -> CommandResult:
    runs = context.project.runs.every()
    return CommandResult([printing.run_json(*run) for run in runs], printing.runs_table(runs, context.steps))


@command("show", "the manifest of a run", RUN)
def _show(context: CommandContext) -> CommandResult:
    manifest = context.find_run(context.arguments.run)
    return CommandResult(manifest.to_json(), printing.run_text(manifest))


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
    "compare",
    "two runs side by side: their differences, and all metrics",
    argument("left", help="a run: a part of its id, or latest~1"),
    argument("right", nargs="?", help="another run; the newest by default"),
    argument("--all", action="store_true", help="show equal values, too"),
)
def _compare(context: CommandContext) -> CommandResult:
    from pipeline.runtime.comparison import compare, comparison_json
    from pipeline.runtime.git import changed_between

    left, right = context.find_run(context.arguments.left), context.find_run(context.arguments.right)
    commits = [str(run.code.get("commit", "")) for run in (left, right)]
    comparison = compare(left, right, changed_between(context.root, *commits))
    text = printing.comparison_text(comparison, everything=context.arguments.all)
    return CommandResult(comparison_json(comparison), text)


@command(
    "lineage",
    "the artifacts that an artifact was made from, and those made from it, over all runs",
    argument("artifact", help="an entity, ENTITY/DIGEST, a digest of 6 digits or more, or an artifact's URL"),
    argument("--mermaid", action="store_true", help="draw a mermaid flowchart"),
)
def _lineage(context: CommandContext) -> CommandResult:
    from pipeline.cli.lineage_drawing import lineage_mermaid, lineage_text
    from pipeline.runtime.lineage import lineage_json, trace

    manifests = context.project.runs.readable()
    if not manifests:
        context.find_run(None)  # raises the error for a store without runs
    lineage = trace(find_artifact(context.arguments.artifact, manifests), manifests)
    draw = lineage_mermaid if context.arguments.mermaid else lineage_text
    return CommandResult(lineage_json(lineage), draw(lineage))


@command(
    "export",
    "the provenance of a run as in-toto Statements, one JSON object a line, to be signed",
    RUN,
    argument("--output", metavar="FILE", type=Path, help="write to a file instead of the screen"),
)
def _export(context: CommandContext) -> CommandResult:
    from pipeline.runtime.git import source_url
    from pipeline.runtime.provenance import statement

    manifest, source = context.find_run(context.arguments.run), source_url(context.root)
    statements = [statement(run, record, source) for run, record in makers(context.project.runs, manifest)]
    lines = [json.dumps(each, ensure_ascii=False) for each in statements]
    output = context.arguments.output
    if output is None:
        return CommandResult(statements, "\n".join(lines))
    output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return CommandResult(statements, f"{len(lines)} lines in {output}")
