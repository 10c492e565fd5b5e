"""The command that makes a data set for labelling of what a service kept."""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from pipeline.cli.command import CommandContext, CommandResult, argument, command
from pipeline.cli.printing import count

_NAMED = 3  # broken files

log = logging.getLogger(__name__)


def _limit(typed: str) -> int:
    if not typed.isdigit() or int(typed) < 1:
        raise argparse.ArgumentTypeError("a number from 1")
    return int(typed)


def _score(typed: str) -> float:
    try:
        value = float(typed)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("a number from 0 to 1")
    return value


def _time(typed: str) -> datetime:
    try:
        found = datetime.fromisoformat(typed)
    except ValueError:
        raise argparse.ArgumentTypeError("a date such as 2026-11-30, or 2026-11-30T18:00, in UTC") from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


@command(
    "collect",
    "a data set for labelling of the images that a service kept, with pre-labels",
    argument("samples", metavar="SAMPLES", help="the folder or URL that the service has in DETECTOR_SAMPLES"),
    argument("--out", metavar="DIR", type=Path, required=True, help="a new folder for the data set"),
    argument("--limit", metavar="N", type=_limit, help="the N most interesting images; all by default"),
    argument("--threshold", metavar="X", type=_score, help="least score of a pre-label; the service's by default"),
    argument("--since", metavar="DATE", type=_time, help="only images from this date or time on, in UTC"),
)
def _collect(context: CommandContext) -> CommandResult:
    from pipeline.client.sample_collection import ANNOTATIONS, collect_samples
    from pipeline.serving.sample_places import open_place

    arguments = context.arguments
    place = open_place(arguments.samples if "://" in arguments.samples else str(Path(arguments.samples).absolute()))
    made = collect_samples(
        place, arguments.out, limit=arguments.limit, threshold=arguments.threshold, since=arguments.since
    )
    for name in made.broken[:_NAMED]:
        log.warning("left out, since it cannot be read: %s", name)
    left_out = {
        "similar to another": made.similar,
        "broken": len(made.broken),
        "less interesting": made.samples - made.similar - len(made.broken) - made.images,
    }
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(made.reasons.items()))
    excluded = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number)
    lines = [
        f"samples    {made.samples}{f', less {excluded}' if excluded else ''}",
        f"images     {made.images}: {reasons}",
        f"pre-labels {count(made.boxes, 'object')}, predicted by {', '.join(made.models)}",
        f"time       {made.first:%Y-%m-%d %H:%M} to {made.last:%Y-%m-%d %H:%M} UTC",
        f"data set   {arguments.out / ANNOTATIONS}",
        "Correct the pre-labels before you train on them.",
    ]
    content = asdict(made) | {"first": made.first.isoformat(), "last": made.last.isoformat()}
    return CommandResult(content | {"folder": str(arguments.out)}, "\n".join(lines))
