"""One of several processes that work on one store and one run at once; prints what it was told is safe, as JSON.

    python busy.py URL RUN NUMBER SECONDS [YOUNG]

With YOUNG, seconds, what counts as young is that much, and every third process collects garbage.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.runtime import garbage_collection
from pipeline.runtime.manifest import SUCCEEDED, StepRecord, now
from pipeline.runtime.runs import Runs
from pipeline.runtime.store import artifact_store
from pipeline.runtime.store.artifact_store import Store

LEAST = 2  # attempts of a process, or else files that it removes
PATIENCE = 100  # seconds more that it may take for it
POOL = 12  # different contents, so that the processes meet at the same objects


def content(number: int) -> bytes:
    """The same for all processes."""
    return random.Random(number).randbytes(2000 + number)


def work(runs: Runs, run: str, number: int, box: Path) -> dict[str, object]:
    """One attempt: put, get, record."""
    chance = random.Random()
    step = chance.choice(["first", "second", "third"])
    record = runs.start(run, StepRecord(step, 0, now(), {}, "n", "c", "f" * 64, {}, {}, {}))
    folder = Path(tempfile.mkdtemp(dir=box))
    chosen = {f"{n}.bin": content(n) for n in chance.sample(range(POOL), 3)}
    for name, value in chosen.items():
        (folder / name).write_bytes(value)
    artifact = runs.store.put("shared", folder, f"{run}/{step}/{record.attempt}")
    back = runs.store.get(artifact, box / f"out{number}")
    assert {path.name: path.read_bytes() for path in back.iterdir()} == chosen
    ended = replace(record, status=SUCCEEDED, outputs={"shared": artifact}, metrics={"by": number})
    runs.end(run, ended)
    return {"step": step, "attempt": record.attempt, "id": record.id, "artifact": asdict(artifact)}


def litter(runs: Runs, box: Path) -> None:
    """Put something that no record refers to."""
    folder = Path(tempfile.mkdtemp(dir=box))
    for n in random.sample(range(POOL), 2):
        (folder / f"{n}.bin").write_bytes(content(n))
    runs.store.put("litter", folder)


def main(url: str, run: str, number: int, seconds: float, young: float) -> None:
    """Until the time is up."""
    if young:
        artifact_store.YOUNG = garbage_collection.YOUNG = young
    done, removed = [], 0
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as place:
        # on a busy machine each goes on until it has done something worth testing
        while time.monotonic() < end or (len(done) < LEAST and not removed and time.monotonic() < end + PATIENCE):
            runs = Runs(Store(url))
            if young and number % 3 == 0:
                removed += len(garbage_collection.collect(runs, garbage_collection.find_garbage(runs, spare=2 * young)))
                time.sleep(0.2)
            else:
                if young:
                    litter(runs, Path(place))
                    time.sleep(random.random() * young)
                done.append(work(runs, run, number, Path(place)))
    sys.stdout.write(json.dumps({"done": done, "removed": removed}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float((*sys.argv[5:], 0)[0]))
