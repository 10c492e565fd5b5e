"""How a dataset shall be split: the choices, and their check before there is a dataset."""

from __future__ import annotations

from pipeline.errors import UsageError, did_you_mean

MODES = ("balanced", "stable")
SOURCE_SPLITS = ("honour", "ignore")
ROUNDING = 1e-9  # by which shares may miss a sum of 1


def check_division(
    mode: str, train_share: float, eval_share: float, *, source_split: str = "honour", max_empty_share: float = 1.0
) -> None:
    """Check the arguments of `split` before there is a dataset."""
    for name, word, known in (("mode", mode, MODES), ("source_split", source_split, SOURCE_SPLITS)):
        if word not in known:
            remedy = did_you_mean(word, known)
            raise UsageError(f"{name} cannot be '{word}'", expected=" or ".join(known), remedy=remedy)
    if not min(train_share, eval_share, 1 - train_share - eval_share) >= -ROUNDING:
        raise UsageError(
            f"train_share {train_share:g} and eval_share {eval_share:g} are no shares",
            expected="0 or more, together at most 1",
        )
    if not 0 <= max_empty_share <= 1:
        raise UsageError(f"max_empty_share cannot be {max_empty_share:g}", expected="a share from 0 to 1")
