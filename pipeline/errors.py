"""The errors a user may meet: each says what happened, where, what was expected, and what to do next.

Both columns of the package raise these. Every kind is also the built-in exception a caller would reach for, so code
that knows nothing of the pipeline can still handle it.
"""

from __future__ import annotations

from collections.abc import Iterable


class PipelineError(Exception):
    """Base of every error meant for a user's eyes.

    Args:
        problem: What happened, in one sentence without a trailing full stop.
        where: The file, URL, cell or item it happened at.
        expected: What would have been right.
        remedy: The next action, ideally something to type.
    """

    def __init__(self, problem: str, *, where: object = "", expected: str = "", remedy: str = "") -> None:
        super().__init__(problem)
        self.problem, self.where, self.expected, self.remedy = problem, str(where), expected, remedy

    def __str__(self) -> str:
        details = {"where:": self.where, "expected:": self.expected, "do:": self.remedy}
        return "\n".join([self.problem, *(f"  {label:<9} {text}" for label, text in details.items() if text)])


class UsageError(PipelineError, ValueError):
    """The call itself is wrong: an unknown name, a value of the wrong type. Exit code 2."""


class DataError(PipelineError, ValueError):
    """Data from outside is not what it claims to be: a broken archive, an inconsistent annotation file."""


class MissingError(PipelineError, FileNotFoundError):
    """Something that was asked for by name is not there: a file, a URL, an artifact, an upstream step."""


class IntegrityError(PipelineError, OSError):
    """Stored bytes differ from what was recorded about them."""


class StoreError(PipelineError, OSError):
    """The store could not do what was asked: full, read-only, out of reach, or refusing us. What it holds is whole."""


class StepError(PipelineError, RuntimeError):
    """A step could not be run to its end."""


class GateError(StepError):
    """A step ran, and its result is below the bar the config sets."""


_LONGEST_NAME = 80  # of one that is compared: the time grows with the length


def did_you_mean(
    name: object, known: Iterable[object], *, otherwise: str = "", most: int = 1, cutoff: float = 0.5
) -> str:
    """A remedy for a wrong name: `did you mean 'epochs'?`, with the nearest known names.

    Args:
        name: What was given. Case is ignored.
        known: The right names.
        otherwise: The remedy where no known name is near.
        most: How many names to offer; names that differ only in case count as one.
        cutoff: The least similarity of a name that is offered, from 0 to 1.
    """
    from difflib import get_close_matches  # most calls never need it

    name = str(name)[:_LONGEST_NAME]
    folded: dict[str, list[str]] = {}
    for each in known:
        folded.setdefault(str(each).casefold(), []).append(str(each))
    near = get_close_matches(str(name).casefold(), folded, most, cutoff)
    names = [repr(each) for match in near for each in dict.fromkeys(folded[match])]
    return f"did you mean {' or '.join(names)}?" if names else otherwise
