"""What the benchmarks print, and where they work."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """A figure that is to be at most so large."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def is_met(self) -> bool:
        """Whether it is."""
        return self.value <= self.limit


def shown(
    figures: Mapping[str, float],
    targets: Sequence[Target],
    times: Mapping[str, Sequence[float]],
    *,
    notes: Sequence[str] = (),
    as_json: bool,
) -> int:
    """Print what was measured.

    Args:
        figures: By name; medians, ratios.
        targets: Some of them, held against their limits.
        times: Each measurement in seconds, of which the figures are made.
        notes: Lines to read the figures by.
        as_json: Print all of it for programs.

    Returns:
        The exit code: 1 when a target is missed.
    """
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores"
    load = os.getloadavg()[0]
    if as_json:
        rows = [{"name": t.name, "value": t.value, "limit": t.limit, "unit": t.unit, "met": t.is_met} for t in targets]
        content = {"machine": machine, "load": load, "figures": figures, "targets": rows, "times_s": times}
        sys.stdout.write(json.dumps({**content, "notes": list(notes)}, indent=2) + "\n")
    else:
        sys.stdout.write(f"{machine}, load {load:.1f}\n\n")
        for name, taken in times.items():
            spread = f"median of {len(taken)}, {min(taken):.3f} to {max(taken):.3f}"
            sys.stdout.write(f"  {name:<22} {sorted(taken)[len(taken) // 2]:8.3f} s   {spread}\n")
        sys.stdout.write("\n")
        for name, figure in figures.items():
            sys.stdout.write(f"  {name:<26} {figure:8.3f}\n")
        sys.stdout.write("\n")
        for target in targets:
            verdict = "met" if target.is_met else "MISSED"
            told = f"{target.value:.3f} {target.unit}".strip()
            sys.stdout.write(f"  {target.name:<48} {told:>9}  of at most {target.limit:g}  {verdict}\n")
        sys.stdout.writelines(f"  {note}\n" for note in ["", *notes] if notes)
    return 0 if all(target.is_met for target in targets) else 1


@contextmanager
def work_in(parent: Path | None, name: str) -> Iterator[Path]:
    """An empty folder that is removed afterwards, read-only files and all."""
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=parent)).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
