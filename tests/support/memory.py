"""The memory that a program takes, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)"


def peak_of(program: str, *arguments: object) -> tuple[str, int]:
    """What a program prints, and the most memory that it had, in MiB; it finds its arguments in `sys.argv`."""
    command = [sys.executable, "-c", f"import sys\n{program}\n{PEAK}", *map(str, arguments)]
    *printed, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return " ".join(printed), int(peak)
