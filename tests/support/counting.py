"""A project of one step that counts seconds, and goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

COUNT = """\
step.logs.mkdir(parents=True, exist_ok=True)
begun = int((step.resume / "count").read_text()) if (step.resume / "count").exists() else 0
print("it begins at", begun, "with the note", Path("note.txt").read_text())
try:
    for second in range(begun, seconds):
        with (step.logs / "seconds.txt").open("a") as log:
            print(second, file=log)
        time.sleep(1)
        (step.resume / "count").write_text(str(second + 1))
finally:
    print("tidied up")
(step.outputs["counted"] / "count.txt").write_text(str(seconds))"""
CELLS = [
    ("md", "# A step that counts"),
    ("", "import time\nfrom pathlib import Path\n\nfrom pipeline.runtime.step import Step"),
    ("parameters", "seconds: int = 0  # how long it takes"),
    ("interface", 'step = Step.open("count", reads=[], writes=["counted"])'),
    ("", COUNT),
    ("", 'step.commit(metrics={"begun": begun})'),
]


def make_counter(make_toy: Callable[[Path, tuple[str, ...]], Any], root: Path, config: str) -> Any:
    """The project in a new folder, a git checkout in which a note is not committed."""
    toy = make_toy(root, ())
    toy.notebook("count", CELLS)
    (toy.root / "configs" / "demo.yaml").write_text(config)
    toy.commit()
    (toy.root / "note.txt").write_text("not committed")
    return toy
