"""The command lines: `step.dev.py` and `step.prod.py` run steps, `python -m pipeline` looks at what was run.

Exit code 0 when what was asked for succeeded, 1 when a step or gate failed, 2 for a wrong call, 130 after Ctrl-C, 143
after SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from yaml import YAMLError

from pipeline import views
from pipeline.code import code_state
from pipeline.config import Values, read_config, read_yaml
from pipeline.delivery import deliver, deliver_below_gate
from pipeline.errors import GateError, MissingError, PipelineError, UsageError
from pipeline.manifest import RunManifest, StepRecord
from pipeline.notebook import StepNotebook, read_steps
from pipeline.project import DEFAULT_CONFIG, Project, check_name
from pipeline.runner import missing_input, open_run, refuse_dirty, run_step
from pipeline.runs import Runs
from pipeline.status import run_status

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
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        return action()
    except UsageError as error:
        log.error("error: %s", error)
        return 2
    except PipelineError as error:
        log.error("error: %s", error)
        return 1
    except KeyboardInterrupt as stop:
        log.error("stopped; what is done is kept, and the same command goes on from there")
        return 128 + int(stop.args[0] if stop.args else signal.SIGINT)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # the disk is full or read-only, a store does not answer
        log.error("error: %s: %s", type(error).__name__, error)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, _: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number)


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
        check_name("step", asked.step, steps)
    if asked.help:
        usage = f"{_step_parser(mode).format_help()}\n{views.step_list(steps)}"
        _say(views.step_help(steps[asked.step]) if asked.step else usage)
        return 0
    fresh = not asked.run and (asked.step is None or not steps[asked.step].reads)
    project = _project(mode, asked, root, steps, fresh=fresh)
    overrides = _overrides(asked.set, asked.step, steps)
    parameters = project.parameters(overrides)
    if mode == "prod":
        refuse_dirty(root, code_state(root))  # before a run is opened that could only fail
    chosen = [steps[asked.step]] if asked.step else list(steps.values())
    if fresh:
        manifest = open_run(project, parameters, overrides)
    else:
        manifest = _joined(project, asked.run, chosen[0])
        for name in sorted(overrides.keys() - {step.name for step in chosen}):
            log.info("--set %s.… is not used: only %s runs", name, chosen[0].name)
        # what was set when the run was opened holds for all its steps
        opened: Values = manifest.config.get("set", {})
        overrides = {name: {**opened.get(name, {}), **overrides.get(name, {})} for name in steps}
        parameters = project.parameters(overrides)
    log.info("run %s  %s  %s", manifest.run, mode, project.config.name)
    records = []
    for step in chosen:
        record = _run_step(project, manifest.run, step, parameters, overrides, asked)
        records.append(record)
        log.info("%s", views.step_line(record, views.name_width(steps)))
    if chosen[-1].name == list(steps)[-1]:
        manifest = project.runs.load(manifest.run)
        _say("\n".join(["", *views.run_lines(manifest, steps, records), *deliver(project, manifest)]))
    return 0


def _run_step(
    project: Project, run: str, step: StepNotebook, parameters: Values, overrides: Values, asked: argparse.Namespace
) -> StepRecord:
    try:
        return run_step(
            project,
            run,
            step,
            parameters[step.name],
            overrides=overrides.get(step.name, {}),
            force=asked.force,
            stream=asked.stream,
        )
    except GateError:
        for line in deliver_below_gate(project, project.runs.load(run).of(step.name)[-1]):
            log.info("%s", line)
        raise


def _project(
    mode: str, asked: argparse.Namespace, root: Path, steps: dict[str, StepNotebook], *, fresh: bool
) -> Project:
    """With the named config, or when a run is joined without naming one, with that run's."""
    project = _with_config(mode, _config_path(root, asked.config), root, steps)
    if asked.config or fresh:
        return project
    joined = project.runs.load(asked.run) if asked.run else project.runs.newest()
    return _with_config(mode, root / joined.config_file, root, steps) if joined else project


def _config_path(root: Path, typed: str | None) -> Path:
    """A file is looked for where the user stands, then in the project."""
    return Path(typed) if typed and Path(typed).is_file() else root / (typed or DEFAULT_CONFIG)


def _with_config(mode: str, path: Path, root: Path, steps: dict[str, StepNotebook]) -> Project:
    """The config is noted relative to the project, where it lies in it."""
    config, whole, top = read_config(path), path.resolve(), root.resolve()
    noted = whole.relative_to(top) if whole.is_relative_to(top) else whole
    return Project(root, mode, config, noted.as_posix(), steps)


def _joined(project: Project, run: str | None, step: StepNotebook) -> RunManifest:
    """The named run, or the newest of this mode and pipeline."""
    if run is None:
        newest = project.runs.newest(pipeline=project.config.name)
        if newest is None:
            raise missing_input(project, step, step.reads[0], None)
        return newest
    manifest = project.runs.load(run)
    if manifest.pipeline != project.config.name:
        raise UsageError(
            f"run {run} belongs to the pipeline '{manifest.pipeline}'",
            where=project.config_file,
            expected=f"a run of '{project.config.name}'",
            remedy=f"--config {manifest.config_file}",
        )
    return manifest


def _overrides(texts: list[str], step: str | None, steps: dict[str, StepNotebook]) -> Values:
    values: Values = {}
    for text in texts:
        name, sign, value = text.partition("=")
        where, dot, parameter = name.partition(".")
        if not dot and step:
            where, parameter = step, name
        if not sign or not parameter:
            raise UsageError(f"--set {text}", expected="STEP.NAME=VALUE", remedy="--set model_train.epochs=3")
        check_name("step", where, steps)
        declared = steps[where].parameters.get(parameter)
        try:
            parsed = value if declared and declared.type == "str" else read_yaml(value)
        except YAMLError as error:
            raise UsageError(f"--set {text}: {error}", expected="a value in YAML's notation") from error
        values.setdefault(where, {})[parameter] = parsed
    return values


# --- looking ---------------------------------------------------------------------------------------------------------


def _inspect_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Look at what was run.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--mode", choices=("dev", "prod"), default="dev", help="whose runs (dev)")
    common.add_argument("--config", metavar="FILE", help=f"whose store and runs; {DEFAULT_CONFIG}'s store, all runs")
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
    if asked.command == "graph":
        _say(_json(views.graph(steps)) if asked.json else views.mermaid(steps))
        return 0
    project = _with_config(asked.mode, _config_path(root, asked.config), root, steps)
    if asked.command == "runs":
        runs = [(run, _readable(project.runs, run)) for run in project.runs.ids()]
        _say(_json([views.run_brief(*run) for run in runs]) if asked.json else views.runs_table(runs, steps))
        return 0
    pipeline = project.config.name if asked.config else ""  # a named config asks for its own runs
    manifest = project.runs.load(asked.run) if asked.run else project.runs.newest(pipeline=pipeline)
    if manifest is None:
        raise MissingError(
            f"there is no {asked.mode} run yet", where=project.runs.store.url, remedy=f"python step.{asked.mode}.py"
        )
    if asked.command == "show":
        _say(_json(manifest.to_json()) if asked.json else views.run_text(manifest))
        return 0
    states = run_status(_with_config(asked.mode, root / manifest.config_file, root, steps), manifest)
    if asked.json:
        _say(_json({"run": manifest.run, "steps": [asdict(state) for state in states]}))
    else:
        rows = [(state.step, state.state, state.why) for state in states]
        _say(f"run {manifest.run}  {manifest.mode}  {manifest.pipeline}\n{views.table(rows, '  ')}")
    return 0


def _readable(runs: Runs, run: str) -> RunManifest | str:
    """A run, or in one line why it cannot be read: one bad run must not hide the others."""
    try:
        return runs.load(run)
    except PipelineError as error:
        return error.problem


def _project_root(here: Path) -> Path:
    for folder in (here, *here.parents):
        if (folder / "steps").is_dir() and (folder / "step.dev.py").is_file():
            return folder
    raise UsageError("this is not a project's folder", where=here, expected="a folder with steps/ and step.dev.py")


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)
