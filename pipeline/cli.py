"""The command lines: `step.dev.py` and `step.prod.py` run steps, `python -m pipeline` looks at what was run.

Exit code 0 when what was asked for succeeded, 1 when a step or gate failed, 2 for a wrong call, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from pipeline.code import code_digest
from pipeline.config import read_config
from pipeline.console import table
from pipeline.errors import PipelineError, UsageError
from pipeline.manifest import GOOD, RUNNING, RunManifest, StepRecord
from pipeline.notebook import StepNotebook, read_steps
from pipeline.runner import Project, check_step, open_run, run_step

DEFAULT_CONFIG = "configs/demo.yaml"

log = logging.getLogger(__name__)


def main(mode: str, arguments: Sequence[str] | None = None, root: Path | None = None) -> int:
    """Run one step or all of them; what `step.dev.py` and `step.prod.py` call.

    Args:
        mode: `dev` or `prod`.
        arguments: Of the command line; the process's own by default.
        root: The project's folder; that of the running script by default.

    Returns:
        The exit code.
    """
    place = root or Path(sys.argv[0]).resolve().parent
    return _guarded(lambda: _run(mode, _step_parser(mode).parse_args(arguments), place))


def inspect(arguments: Sequence[str] | None = None, root: Path | None = None) -> int:
    """Look at runs; what `python -m pipeline` calls."""
    return _guarded(lambda: _look(_inspect_parser().parse_args(arguments), root or _project_root(Path.cwd())))


def _guarded(action: Callable[[], int]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return action()
    except UsageError as error:
        log.error("error: %s", error)
        return 2
    except PipelineError as error:
        log.error("error: %s", error)
        return 1
    except KeyboardInterrupt:
        log.error("stopped; what is done is kept, and the same command goes on from there")
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


# --- running ---------------------------------------------------------------------------------------------------------


def _step_parser(mode: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"step.{mode}.py",
        description=f"Run one step of the pipeline in {mode} mode, or all of them; what is up to date is reused.",
        add_help=False,
    )
    parser.add_argument("step", nargs="?", help="a step's name; all steps when left out")
    parser.add_argument("--config", metavar="FILE", help=f"the scenario; {DEFAULT_CONFIG}, or the joined run's")
    parser.add_argument("--set", action="append", default=[], metavar="STEP.NAME=VALUE", help="set one parameter")
    parser.add_argument("--run", metavar="ID", help="the run to join; the newest by default")
    parser.add_argument("--force", action="store_true", help="run even what is up to date")
    parser.add_argument("--stream", action="store_true", help="show what the notebooks print, as it comes")
    parser.add_argument("-h", "--help", action="store_true", help="this text, or a step's own parameters")
    return parser


def _run(mode: str, asked: argparse.Namespace, root: Path) -> int:
    steps = read_steps(root / "steps")
    if asked.step is not None:
        check_step(asked.step, steps)
    if asked.help:
        _say(_step_help(steps[asked.step]) if asked.step else _step_parser(mode).format_help() + _step_list(steps))
        return 0
    fresh = not asked.run and (asked.step is None or not steps[asked.step].reads)
    project = _project(mode, asked, root, steps, fresh=fresh)
    parameters = project.parameters(_overrides(asked.set, asked.step, steps))
    chosen = [steps[asked.step]] if asked.step else list(steps.values())
    if mode == "prod":
        _refuse_dirty_early(root)
    joined = None if fresh else _joined(project, asked.run)
    manifest = joined or open_run(project, parameters)
    log.info("run %s  %s  %s", manifest.run, mode, project.config.name)
    for step in chosen:
        record = run_step(project, manifest.run, step, parameters[step.name], force=asked.force, stream=asked.stream)
        log.info("%s", _line(record, width=max(map(len, steps))))
    if asked.step is None or chosen[-1].name == list(steps)[-1]:
        _say(_summary(project, manifest.run))
    return 0


def _refuse_dirty_early(root: Path) -> None:
    """Before a run is opened that could only fail."""
    from pipeline.code import code_state
    from pipeline.runner import refuse_dirty

    refuse_dirty(root, code_state(root))


def _project(mode: str, asked: argparse.Namespace, root: Path, steps: dict[str, StepNotebook], *, fresh: bool) -> Project:
    """With the named config, or when a run is joined without naming one, with that run's."""
    file = asked.config or DEFAULT_CONFIG
    path = Path(file) if Path(file).is_absolute() or Path(file).is_file() else root / file
    project = Project(root, mode, read_config(path), str(file), steps)
    if asked.config or fresh:
        return project
    joined = project.runs.load(asked.run) if asked.run else project.runs.newest()
    if joined is None or joined.config_file == file:
        return project
    path = root / joined.config_file
    return Project(root, mode, read_config(path), joined.config_file, steps)


def _joined(project: Project, run: str | None) -> RunManifest | None:
    """The named run, or the newest of this mode and pipeline; None when there is none yet."""
    if run is None:
        return project.runs.newest(pipeline=project.config.name)
    manifest = project.runs.load(run)
    if manifest.pipeline != project.config.name:
        raise UsageError(
            f"run {run} belongs to the pipeline '{manifest.pipeline}'",
            where=project.config_file,
            expected=f"a run of '{project.config.name}'",
            remedy=f"--config {manifest.config_file}",
        )
    return manifest


def _overrides(texts: list[str], step: str | None, steps: dict[str, StepNotebook]) -> dict[str, dict[str, Any]]:
    values: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        where, dot, parameter = name.partition(".")
        if not dot and step:
            where, parameter = step, name
        if not sign or not parameter:
            raise UsageError(f"--set {text}", expected="STEP.NAME=VALUE", remedy="--set model_train.epochs=3")
        check_step(where, steps)
        declared = steps[where].parameters.get(parameter)
        try:
            parsed = value if declared and declared.type == "str" else yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {text}: {error}", expected="a value in YAML's notation") from error
        values.setdefault(where, {})[parameter] = parsed
    return values


def _step_help(step: StepNotebook) -> str:
    rows = [(f"  {p.name}", p.type, _shown(p.default), p.help) for p in step.parameters.values()]
    reads, writes = ", ".join(step.reads) or "the outside world", ", ".join(step.writes)
    return f"{step.title}\n\nreads   {reads}\nwrites  {writes}\n\nparameters, their types and defaults:\n{table(rows)}"


def _step_list(steps: dict[str, StepNotebook]) -> str:
    return "\nsteps, in their order:\n" + table([(f"  {step.name}", step.title) for step in steps.values()])


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _line(record: StepRecord, width: int) -> str:
    """`model_eval  succeeded  41.0 s  mAP 0.612  mAP50 0.874`."""
    figures = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
               for name, value in list(record.metrics.items())[:2]]
    source = f"from {record.reused_from}" if record.reused_from else ""
    parts = [record.step.ljust(width), record.status.ljust(11), f"{record.seconds:7.1f} s", *figures, source]
    return "  ".join(part for part in parts if part).rstrip()


def _summary(project: Project, run: str) -> str:
    """What a run made: a line a step, and its deliverables laid out as plain folders."""
    manifest = project.runs.load(run)
    records = [manifest.of(name)[-1] for name in project.steps if manifest.of(name)]
    lines = [f"\nrun {run}", *(f"  {_line(record, max(map(len, project.steps)))}" for record in records)]
    if all(manifest.success(name) for name in project.steps):
        out = project.root / "out" / project.mode / project.config.name
        for entity, text in project.config.deliver.items():
            artifact = manifest.output(entity)
            if artifact is None:
                raise UsageError(f"no step writes '{entity}'", where=f"{project.config_file}, deliver")
            out.mkdir(parents=True, exist_ok=True)
            folder = project.runs.store.get(artifact, out / entity)
            lines.append(text.format(path=_short(folder), bin=_short(Path(sys.executable).parent)))
    return "\n".join(lines)


def _short(path: Path) -> str:
    """Relative to where the user stands, if below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


# --- looking ---------------------------------------------------------------------------------------------------------


def _inspect_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Look at what was run.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--mode", choices=("dev", "prod"), default="dev", help="whose runs (dev)")
    common.add_argument("--config", default=DEFAULT_CONFIG, metavar="FILE", help=f"whose store ({DEFAULT_CONFIG})")
    common.add_argument("--json", action="store_true", help="for programs")
    commands = parser.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", parents=[common], help="each step of a run: done, stale, failed, and why")
    status.add_argument("run", nargs="?", help="the newest by default")
    commands.add_parser("runs", parents=[common], help="all runs, oldest first")
    show = commands.add_parser("show", parents=[common], help="one run's manifest")
    show.add_argument("run", nargs="?", help="the newest by default")
    commands.add_parser("graph", parents=[common], help="the steps and what passes between them, as mermaid")
    return parser


def _look(asked: argparse.Namespace, root: Path) -> int:
    steps = read_steps(root / "steps")
    path = Path(asked.config) if Path(asked.config).is_file() else root / asked.config
    project = Project(root, asked.mode, read_config(path), asked.config, steps)
    if asked.command == "graph":
        _say(json.dumps(_graph(steps), indent=2) if asked.json else _mermaid(steps))
        return 0
    runs = project.runs
    if asked.command == "runs":
        manifests = [runs.load(run) for run in runs.ids()]
        _say(json.dumps([_brief(m) for m in manifests], indent=2) if asked.json else _runs_table(manifests, steps))
        return 0
    manifest = runs.load(asked.run) if asked.run else runs.newest()
    if manifest is None:
        raise PipelineError(f"there is no {asked.mode} run yet", where=runs.store.url, remedy=f"python step.{asked.mode}.py")
    if asked.command == "show":
        _say(json.dumps(manifest.to_json(), indent=2, ensure_ascii=False) if asked.json else _show(manifest))
        return 0
    if manifest.config_file != asked.config and (root / manifest.config_file).is_file():
        project = Project(root, asked.mode, read_config(root / manifest.config_file), manifest.config_file, steps)
    rows = _status(project, manifest)
    if asked.json:
        _say(json.dumps({"run": manifest.run, "steps": [dict(zip(("step", "state", "why"), r, strict=True)) for r in rows]}))
    else:
        _say(f"run {manifest.run}  {manifest.mode}  {manifest.pipeline}\n{table(rows, '  ')}")
    return 0


def _project_root(here: Path) -> Path:
    for folder in (here, *here.parents):
        if (folder / "steps").is_dir() and (folder / "step.dev.py").is_file():
            return folder
    raise UsageError("this is not a project's folder", where=here, expected="a folder with steps/ and step.dev.py")


def _brief(manifest: RunManifest) -> dict[str, Any]:
    steps = {record.step: record.status for record in manifest.attempts}
    return {"run": manifest.run, "mode": manifest.mode, "pipeline": manifest.pipeline, "steps": steps}


def _runs_table(manifests: list[RunManifest], steps: dict[str, StepNotebook]) -> str:
    if not manifests:
        return "no runs yet"
    rows: list[tuple[Any, ...]] = [("run", "pipeline", "commit", *steps)]
    for manifest in manifests:
        latest = {record.step: record.status for record in manifest.attempts}
        commit = manifest.code["commit"][:8] + ("+" if manifest.code["dirty"] else "")
        rows.append((manifest.run, manifest.pipeline, commit, *(latest.get(name, "-") for name in steps)))
    return table(rows)


def _show(manifest: RunManifest) -> str:
    tree = " with changes" if manifest.code["dirty"] else ""
    lines = [f"run       {manifest.run}", f"pipeline  {manifest.pipeline}, {manifest.mode}, zone {manifest.zone}",
             f"config    {manifest.config_file}", f"commit    {manifest.code['commit'] or 'none'}{tree}"]
    for record in manifest.attempts:
        lines.append(f"\n{record.step}, attempt {record.attempt}: {record.status}, {record.seconds:.1f} s")
        if record.reused_from:
            lines.append(f"  outputs of {record.reused_from}")
        for sign, side in (("<-", record.inputs), ("->", record.outputs)):
            rows = [(sign, name, a.digest[:12], f"{a.files} files", f"{a.size / 1e6:.1f} MB") for name, a in side.items()]
            lines += [table(rows, "  ")] if rows else []
        if record.metrics:
            lines.append(table([("", name, _shown(value)) for name, value in record.metrics.items()], "  "))
        lines += [f"  {line}" for line in record.error.splitlines()]
        lines += [f"  {path}" for path in (record.notebook, record.report) if path]
    return "\n".join(lines)


def _status(project: Project, manifest: RunManifest) -> list[tuple[str, str, str]]:
    """Step, state and why: stale when what it would be made from now differs from what it was made from."""
    # what the run was opened with, which may hold values set on the command line that no file knows
    recorded = manifest.config["parameters"]
    asked = {name: recorded.get(name, {}) for name in project.steps}
    rows = []
    for name, step in project.steps.items():
        attempts = manifest.of(name)
        if not attempts:
            rows.append((name, "not run", ""))
            continue
        record = attempts[-1]
        if record.status not in GOOD:
            why = record.error.splitlines()[0] if record.error else ""
            why = f"since {record.started}, or killed" if record.status == RUNNING else why
            rows.append((name, record.status, why))
            continue
        changed = [key for key in step.parameters if asked[name].get(key) != record.parameters.get(key)]
        reasons = [
            ("the notebook changed", step.digest != record.notebook_digest),
            ("its code changed", code_digest(step.imports) != record.code_digest),
            (f"parameters changed: {', '.join(changed)}", bool(changed)),
            ("inputs changed", any(manifest.output(entity) != artifact for entity, artifact in record.inputs.items())),
        ]
        why = "; ".join(text for text, true in reasons if true)
        rows.append((name, "stale" if why else "done", why or (f"from {record.reused_from}" if record.reused_from else "")))
    return rows


def _graph(steps: dict[str, StepNotebook]) -> list[dict[str, Any]]:
    return [{"step": s.name, "reads": s.reads, "writes": s.writes, "parameters": [asdict(p) for p in s.parameters.values()]}
            for s in steps.values()]


def _mermaid(steps: dict[str, StepNotebook]) -> str:
    lines = ["flowchart LR"]
    for step in steps.values():
        lines.append(f"    {step.name}[{step.name}]")
        lines += [f"    {step.name} --> {entity}([{entity}])" for entity in step.writes]
    lines += [f"    {entity} --> {step.name}" for step in steps.values() for entity in step.reads]
    return "\n".join(lines)

