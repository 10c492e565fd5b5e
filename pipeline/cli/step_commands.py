"""The command lines that run steps: `step.dev.py` and `step.prod.py`. Looking at what was run: see `inspection`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from yaml import YAMLError

from pipeline.cli import printing
from pipeline.cli.command import guarded, say
from pipeline.errors import GateError, UsageError
from pipeline.runtime.code import code_state, refuse_dirty
from pipeline.runtime.config import Values, read_yaml
from pipeline.runtime.deliverables import deliver, deliver_below_gate, deliver_early
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.notebook import StepNotebook, read_steps
from pipeline.runtime.project import DEFAULT_CONFIG, Project, check_name, config_path, with_config, with_config_of
from pipeline.runtime.resolving import NamedInput, find_input
from pipeline.runtime.run_selection import named_inputs, open_run, unfinished_run
from pipeline.runtime.runner import missing_input, run_step

Inputs = dict[str, NamedInput]

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
    stopped = "stopped; what is done is kept, and the same command goes on from there"
    return guarded(lambda: _run(mode, _step_parser(mode).parse_args(arguments), place), stopped)


def _step_parser(mode: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"step.{mode}.py",
        description=f"Run one step of the pipeline in {mode} mode, or all of them; what is up to date is reused.",
        add_help=False,
    )
    parser.add_argument("step", nargs="?", help="a step's name; all steps when left out")
    parser.add_argument("--config", metavar="FILE", help=f"the scenario; {DEFAULT_CONFIG}, or the joined run's")
    parser.add_argument("--set", action="append", default=[], metavar="STEP.NAME=VALUE", help="set one parameter")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="ENTITY=ARTIFACT|RUN",
        help="use this input in place of the run's own; it need not agree with the others",
    )
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
        usage = f"{_step_parser(mode).format_help()}\n{printing.step_list(steps)}"
        say(printing.step_help(steps[asked.step]) if asked.step else usage)
        return 0
    fresh = not asked.run and (asked.step is None or not steps[asked.step].reads)
    project = _project(mode, asked, root, steps, fresh=fresh)
    overrides = _overrides(asked.set, asked.step, steps)
    parameters = project.parameters(overrides)
    if mode == "prod":
        refuse_dirty(root, code_state(root))  # before a run is opened that could only fail
    chosen = [steps[asked.step]] if asked.step else list(steps.values())
    names = [step.name for step in chosen]
    typed = _named(project, asked.input, chosen)
    continued = unfinished_run(project, parameters, overrides, names, typed) if fresh and not asked.force else None
    if continued:  # what `latest` stood for then, it stands for now
        inputs = named_inputs(continued)
    else:
        inputs = {entity: find_input(project, entity, text) for entity, text in typed.items()}
    if fresh:
        manifest = continued or open_run(project, parameters, overrides, names, inputs)
    else:
        joined = _joined(project, asked.run, chosen[0], inputs)
        manifest = joined or open_run(project, parameters, overrides, names, inputs)
        for name in sorted(overrides.keys() - {step.name for step in chosen}):
            log.info("--set %s.… is not used: only %s runs", name, chosen[0].name)
        # what was set when the run was opened holds for all its steps
        opened: Values = manifest.config.get("set", {})
        overrides = {name: {**opened.get(name, {}), **overrides.get(name, {})} for name in steps}
        parameters = project.parameters(overrides)
    log.info("run %s  %s  %s%s", manifest.run, mode, project.config.name, "  continued" if continued else "")
    records, last = [], list(steps)[-1]
    for step in chosen:
        record = _run_step(project, manifest.run, step, parameters, overrides, asked, inputs, continued=bool(continued))
        records.append(record)
        log.info(
            "%s", "\n".join([printing.step_line(record, printing.name_width(steps)), *printing.note_lines(record)])
        )
        if step.name != last:  # after the last they are all told of together
            for line in deliver_early(project, record):
                log.info("%s", line)
    if chosen[-1].name == last:
        manifest = project.runs.load(manifest.run)
        say("\n".join(["", *printing.run_lines(manifest, steps, records), *deliver(project, manifest)]))
    return 0


def _run_step(
    project: Project,
    run: str,
    step: StepNotebook,
    parameters: Values,
    overrides: Values,
    asked: argparse.Namespace,
    inputs: Inputs,
    *,
    continued: bool,
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
            continued=continued,
            chosen=inputs,
        )
    except GateError:
        for line in deliver_below_gate(project, project.runs.load(run).of(step.name)[-1]):
            log.info("%s", line)
        raise


def _project(
    mode: str, asked: argparse.Namespace, root: Path, steps: dict[str, StepNotebook], *, fresh: bool
) -> Project:
    """With the named config, or when a run is joined without naming one, with that run's."""
    project = with_config(mode, config_path(root, asked.config), root, steps)
    if asked.config or fresh:
        return project
    joined = project.runs.load(asked.run) if asked.run else project.runs.newest()
    return with_config_of(joined, root, steps) if joined else project


def _joined(project: Project, run: str | None, step: StepNotebook, inputs: Inputs) -> RunManifest | None:
    """The named run, or the newest of this mode and pipeline; None where there is none and none is needed."""
    if run is None:
        newest = project.runs.newest(pipeline=project.config.name)
        lacking = [entity for entity in step.reads if entity not in inputs]
        if newest is None and lacking:
            raise missing_input(project, step, lacking[0], None)
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


def _named(project: Project, texts: list[str], chosen: Sequence[StepNotebook]) -> dict[str, str]:
    """What `--input` says: entity to what is typed for it."""
    typed: dict[str, str] = {}
    for text in texts:
        entity, sign, source = text.partition("=")
        if not sign or not source:
            raise UsageError(
                f"--input {text}", expected="ENTITY=ARTIFACT|RUN", remedy="--input coco_test_dataset=latest~1"
            )
        check_name("entity", entity, dict.fromkeys(name for step in project.steps.values() for name in step.reads))
        if entity in typed:
            raise UsageError(f"--input names {entity} twice", expected=f"{typed[entity]} or {source}")
        if not any(entity in step.reads for step in chosen):
            raise UsageError(
                f"--input {text}: {chosen[0].name} does not read {entity}",
                expected=f"one of {', '.join(chosen[0].reads)}" if chosen[0].reads else "no input: it has none",
                remedy=f"name it for {', '.join(s.name for s in project.steps.values() if entity in s.reads)}",
            )
        typed[entity] = source
    return typed


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
