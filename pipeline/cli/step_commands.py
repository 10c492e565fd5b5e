"""The command lines that run steps: `step.dev.py` and `step.prod.py`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yaml import YAMLError

from pipeline.cli import ACTIVATE, printing
from pipeline.cli.command import CommandContext, ShowVersion, print_result, run_guarded
from pipeline.errors import GateError, UsageError
from pipeline.runtime.code import NOT_INSTALLED, environment
from pipeline.runtime.deliverables import deliver, deliver_step
from pipeline.runtime.engines.choice import check_engine
from pipeline.runtime.git import code_state, refuse_dirty
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.notebook import StepNotebook
from pipeline.runtime.project import DEFAULT_CONFIG, Project, Values, check_name, read_yaml, with_config_of
from pipeline.runtime.resolving import NamedInput, find_input, find_run
from pipeline.runtime.runner import missing_input, named_inputs, open_run, run_step, unfinished_run

log = logging.getLogger(__name__)


def main(mode: str, arguments: Sequence[str] | None = None, root: Path | None = None) -> int:
    """Run one step or all of them, and return the exit code.

    The command line and the project's folder are by default those of the running script.
    """
    folder = root or Path(sys.argv[0]).resolve().parent
    stopped = "stopped; completed work is kept, and the same command continues from there"
    return run_guarded(lambda: _run(CommandContext(_parser(mode).parse_args(arguments), folder)), stopped)


def _parser(mode: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"step.{mode}.py",
        description=f"Run one step of the pipeline in {mode} mode, or all of them; up-to-date steps are reused.",
        add_help=False,
    )
    parser.set_defaults(mode=mode)
    parser.add_argument("step", nargs="?", help="a step's name; all steps by default")
    config_help = f"the config; by default {DEFAULT_CONFIG}, or the joined run's"
    input_help = "use this input instead of the run's own; it need not agree with the others"
    run_help = "the run to join: its id, the beginning or end of it, latest or latest~1; the newest by default"
    earlier_help = "compare only with what runs before this one made; by default before the run itself"
    several: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("--config", metavar="FILE", help=config_help)
    parser.add_argument("--set", metavar="STEP.NAME=VALUE", help="set one parameter", **several)
    parser.add_argument("--input", metavar="ENTITY=ARTIFACT|RUN", help=input_help, **several)
    parser.add_argument("--run", metavar="RUN", help=run_help)
    parser.add_argument("--earlier-than", metavar="RUN", default="", help=earlier_help)
    parser.add_argument("--force", action="store_true", help="run up-to-date steps, too")
    parser.add_argument("--stream", action="store_true", help="show the notebooks' output as it comes")
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version, and exit")
    parser.add_argument("-h", "--help", action="store_true", help="show this text, or a step's own parameters")
    return parser


def _run(context: CommandContext) -> int:
    arguments, steps = context.arguments, context.steps
    if arguments.step is not None:
        check_name("step", arguments.step, steps)
    if arguments.help:
        usage = f"{_parser(arguments.mode).format_help()}\n{printing.step_list(steps)}"
        print_result(printing.step_help(steps[arguments.step]) if arguments.step else usage)
        return 0
    opens_run = not arguments.run and (arguments.step is None or not steps[arguments.step].reads)
    project = _select_project(context, opens_run=opens_run)
    overrides = parse_overrides(arguments.set, arguments.step, steps)
    check_packages()
    parameters = project.parameters(overrides)  # whose checks may import any of the packages
    selected = [steps[arguments.step]] if arguments.step else list(steps.values())
    check_ready(project, selected)
    names, typed = [step.name for step in selected], parse_inputs(arguments.input, selected)
    can_continue = opens_run and not arguments.force
    earlier, pipeline = arguments.earlier_than, project.config.name
    before = find_run(project, earlier, pipeline=pipeline).run if earlier else ""
    manifest = unfinished_run(project, parameters, overrides, names, typed) if can_continue else None
    is_continued = manifest is not None
    if manifest:  # `latest` keeps the meaning that it had when the run was opened
        inputs = named_inputs(manifest)
    else:
        inputs = {entity: find_input(project, entity, text) for entity, text in typed.items()}
        manifest = None if opens_run else _joined_run(project, arguments.run, selected[0], inputs)
        manifest = manifest or open_run(project, parameters, overrides, names, inputs)
        if not opens_run:  # the `--set` of the command that opened the run holds for all its steps
            for name in sorted(overrides.keys() - set(names)):
                log.info("--set %s.… is not used: only %s runs", name, names[0])
            opened: Values = manifest.config.get("set", {})
            overrides = {name: {**opened.get(name, {}), **overrides.get(name, {})} for name in steps}
            parameters = project.parameters(overrides)
    log.info("run %s  %s  %s%s", manifest.run, project.mode, project.config.name, "  continued" if is_continued else "")
    for step in selected:
        try:
            record = run_step(
                project,
                manifest.run,
                step,
                parameters[step.name],
                overrides=overrides.get(step.name, {}),
                force=arguments.force,
                stream=arguments.stream,
                continued=is_continued,
                chosen=inputs,
                before=before,
            )
        except GateError:
            _log_lines(deliver_step(project, manifest.run, project.runs.load(manifest.run).of(step.name)[-1]))
            raise
        log_step(record, steps)
        if step.name != list(steps)[-1]:  # the last step's deliverables are shown with all others
            _log_lines(deliver_step(project, manifest.run, record))
    if selected[-1].name == list(steps)[-1]:
        manifest = project.runs.load(manifest.run)
        is_terminal = sys.stdout.isatty() and sys.stderr.isatty()  # it shows the lines of the steps already
        lines = [] if is_terminal else printing.run_lines(manifest, steps)
        print_result("\n".join(["", f"run {manifest.run}", *lines, *deliver(project, manifest)]))
    return 0


def _select_project(context: CommandContext, *, opens_run: bool) -> Project:
    """The project with the named config; without one, with that of the joined run, or the default."""
    arguments, project = context.arguments, context.project
    if arguments.config:
        return project
    newest = find_run(project, arguments.run) if arguments.run else project.runs.newest()
    if newest and not opens_run:
        project = with_config_of(newest, context.root, context.steps)
    elif newest and (project.root / newest.config_file).resolve() != (project.root / project.config_file).resolve():
        raise UsageError(
            f"the newest {project.mode} run is of {newest.config_file}, and --config is not given",
            where=f"run {newest.run}",
            remedy=f"--config {newest.config_file}, or --config {project.config_file}",
        )
    log.info("config %s", project.config_file)
    return project


def check_packages() -> None:
    """Refuse to run anything where packages are missing."""
    if missing := [name for name, version in environment().items() if version == NOT_INSTALLED]:
        raise UsageError(f"packages are missing: {', '.join(missing)}", where=sys.executable, remedy=ACTIVATE)


def check_ready(project: Project, selected: Sequence[StepNotebook]) -> None:
    """Refuse what would stop the steps, before a run is opened."""
    if project.mode == "prod":
        refuse_dirty(project.root, code_state(project.root))
    check_engine(project, selected)


def log_step(record: StepRecord, steps: dict[str, StepNotebook]) -> None:
    """Tell what a step came to."""
    _log_lines([printing.step_line(record, steps), *printing.note_lines(record)])


def _log_lines(lines: Sequence[str]) -> None:
    for line in lines:
        log.info("%s", line)


def _joined_run(
    project: Project, name: str | None, step: StepNotebook, inputs: dict[str, NamedInput]
) -> RunManifest | None:
    """The named run, or the newest of this mode and pipeline; None where there is none and none is needed."""
    if name is None:
        newest = project.runs.newest(pipeline=project.config.name)
        missing = [entity for entity in step.reads if entity not in inputs]
        if newest is None and missing:
            raise missing_input(project, step, missing[0], None)
        return newest
    manifest = find_run(project, name, pipeline=project.config.name)
    if manifest.pipeline != project.config.name:
        raise UsageError(
            f"run {manifest.run} belongs to the pipeline '{manifest.pipeline}'",
            where=project.config_file,
            expected=f"a run of '{project.config.name}'",
            remedy=f"--config {manifest.config_file}",
        )
    return manifest


def parse_inputs(texts: Sequence[str], selected: Sequence[StepNotebook]) -> dict[str, str]:
    """The values of `--input`: entity to the text after the equals sign."""
    typed: dict[str, str] = {}
    for text in texts:
        entity, _, source = text.partition("=")
        if not source:
            remedy = "--input coco_test_dataset=latest~1"
            raise UsageError(f"--input {text}", expected="ENTITY=ARTIFACT|RUN", remedy=remedy)
        check_name("input", entity, dict.fromkeys(name for step in selected for name in step.inputs))
        typed[entity] = source
    return typed


def parse_overrides(texts: Sequence[str], step: str | None, steps: dict[str, StepNotebook]) -> Values:
    """The values of `--set`, by step and parameter; a parameter without a step is one of `step`."""
    values: Values = {}
    for text in texts:
        name, sign, value = text.partition("=")
        owner, dot, parameter = name.partition(".")
        if not dot and step:
            owner, parameter = step, name
        if not sign or not parameter:
            raise UsageError(f"--set {text}", expected="STEP.NAME=VALUE", remedy="--set model_train.epochs=3")
        check_name("step", owner, steps)
        declared = steps[owner].parameters.get(parameter)
        try:
            parsed = value if declared and declared.type == "str" else read_yaml(value)
        except YAMLError as error:
            raise UsageError(f"--set {text}: {error}", expected="a value in YAML's notation") from error
        values.setdefault(owner, {})[parameter] = parsed
    return values
