"""The command that tries combinations of parameters, each as an ordinary run, and compares what they came to."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict

from pipeline.cli.command import CommandContext, CommandResult, argument, command
from pipeline.cli.printing import count
from pipeline.cli.swept_parameters import Combination, SweptParameter, check_trials, combinations, parse_over
from pipeline.cli.trials import Trial, Trials, value_text
from pipeline.commands.trial_table import cautions, short_parameters, trial_lines
from pipeline.runtime.project import Project
from pipeline.runtime.resolving import short_names

log = logging.getLogger(__name__)


@command(
    "sweep",
    "run a config with each combination of some parameters, and compare mAP and latency",
    argument("config", metavar="CONFIG", help="the config of all trials"),
    argument(
        "--over",
        metavar="STEP.NAME=VALUES",
        action="append",
        required=True,
        help="a parameter and its values, with commas between; with --trials also a range of numbers, LOW..HIGH; "
        "given several times, every combination is tried",
    ),
    argument("--trials", metavar="N", type=int, help="try N combinations, each chosen by the mAP of those before"),
)
def _sweep(context: CommandContext) -> CommandResult:
    from pipeline.cli.step_commands import check_packages, check_ready
    from pipeline.cli.trial_search import check_optuna

    project, trials = context.project, context.arguments.trials
    swept = parse_over(context.arguments.over, context.steps)
    if trials is not None:
        check_optuna()
    check_packages()
    check_trials(project, swept, trials)
    check_ready(project, list(context.steps.values()))
    try:
        ran = _run(project, swept, trials)
    except KeyboardInterrupt:
        log.info("trials that have ended are kept; the same command goes on from there")
        raise
    return _compare(project, swept, ran)


def _run(project: Project, swept: Sequence[SweptParameter], wanted: int | None) -> Trials:
    """Run every combination, or search among them for a `wanted` number that is smaller."""
    number = math.prod(each.size for each in swept)
    trials = Trials(project, swept, int(number if wanted is None else min(wanted, number)))
    if wanted is None or (wanted >= number and not any(each.is_range for each in swept)):
        for combination in combinations(swept):
            trials.run(combination)
        return trials
    from pipeline.cli.trial_search import search
    from pipeline.commands.trial_outcome import searched_metric

    def run(combination: Combination) -> float | None:
        return searched_metric(trials.run(combination))

    search(swept, trials.number, run)
    return trials


def _compare(project: Project, swept: Sequence[SweptParameter], ran: Trials) -> CommandResult:
    """Set the trials side by side, and write the page."""
    from pipeline.commands.trial_outcome import trial_figures
    from pipeline.evaluation.trial_figures import pareto_front, ranked, test_sets

    done = ran.done
    texts = [{name: value_text(value) for name, value in each.combination.items()} for each in done]
    varied = [each.name for each in swept if any(text[each.name] != texts[0][each.name] for text in texts)]
    varied = varied or [each.name for each in swept]
    constant = {name: value for name, value in texts[0].items() if name not in varied}
    names = short_parameters(varied)
    figures = ranked(
        [
            trial_figures(project, each, {short: text[name] for name, short in names.items()})
            for each, text in zip(done, texts, strict=True)
        ]
    )
    front, notes = pareto_front(figures), cautions(figures)
    runs = short_names(project.runs.ids())
    lines = ["", *trial_lines(figures, front, constant, notes, runs)]
    page, deliver = None, None
    if test_sets(figures):
        from pipeline.evaluation.report.trials_page import write_trials  # slow to import

        deliver = _deliver_command(project, done[figures[0].number - 1], ran.before)
        page = project.root / "out" / project.mode / project.config.name / "sweeps" / f"{'-'.join(names.values())}.html"
        title = f"{project.config.name}: {count(len(done), 'trial')} of {', '.join(names.values())}"
        write_trials(page, figures, title=title, constant=constant, cautions=notes, command=deliver)
        lines += ["", f"page     {shlex.quote(str(page))}", f"deliver  {deliver}"]
    trials = [
        asdict(each) | {"values": done[each.number - 1].combination, "on_front": each.number in front}
        for each in figures
    ]
    known = {"config": project.config_file, "mode": project.mode, "constant": constant}
    content = known | {"trials": trials, "cautions": notes, "page": page and str(page), "deliver": deliver}
    return CommandResult(content, "\n".join(lines), code=1 if any(each.problem for each in done) else 0)


def _deliver_command(project: Project, trial: Trial, before: str) -> str:
    """The command that reuses a trial's steps and lays out its deliverables.

    It compares with what was there `before` the sweep, as the trial did.
    """
    sets = [part for name, value in trial.combination.items() for part in ("--set", f"{name}={value_text(value)}")]
    script = f"step.{project.mode}.py"
    return shlex.join(["python", script, "--config", project.config_file, *sets, "--earlier-than", before])
