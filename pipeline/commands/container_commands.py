"""The command that makes a container image of a packed service."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pipeline.cli.command import CommandContext, CommandResult, argument, command
from pipeline.commands.named_service import bento_folder, fetched, find_service
from pipeline.errors import StepError


@command(
    "containerize",
    "a container image of a packed service, with its bill of materials, and files for Compose and Kubernetes",
    argument(
        "service", nargs="?", metavar="RUN|BENTO", help="a run, or the folder of a Bento; the newest run by default"
    ),
    argument("--tag", default="", metavar="NAME:TAG", help="the image's name and tag; by default the Bento's"),
    argument("--context", type=Path, metavar="DIR", dest="folder", help="where to write what the image is built from"),
    argument(
        "--engine", metavar="PROGRAM", help="docker, podman, nerdctl or buildah; by default the first that answers"
    ),
)
def _containerize(context: CommandContext) -> CommandResult:
    from pipeline.containers.build_context import write_context
    from pipeline.containers.engines import Engine, build, build_command, check_engine, find_engine, silence_of
    from pipeline.containers.packed_bento import PackedBento

    arguments = context.arguments
    engine = find_engine()
    if arguments.engine:
        check_engine(arguments.engine)
        engine = Engine(arguments.engine, silence_of(arguments.engine))
    with _service(context) as service:
        bento, folder = PackedBento.read(service.folder), arguments.folder or _typed(service.place)
        written = write_context(bento, folder, tag=arguments.tag, run=service.run)
    typed = shlex.join(build_command(engine.name, written.folder, written.tag))
    if engine.silence and arguments.engine:
        raise StepError(engine.silence, where=written.folder, remedy=f"where it answers: {typed}")
    if not engine.silence:
        build(engine.name, written.folder, written.tag)
    starter = "podman" if engine.name == "buildah" else engine.name
    start = f"{starter} run --rm --read-only --tmpfs /tmp --publish 127.0.0.1:3000:3000 {written.tag}"
    lines = [
        f"service  {bento.tag}{f' of run {service.run}' if service.run else ''}: {bento.title}",
        *([f"note     {service.note}"] if service.note else []),
        f"context  {written.folder}: {', '.join(written.files)}",
        f"image    {f'none: {engine.silence}' if engine.silence else f'{written.tag}, built by {engine.name}'}",
        *([f"build    {typed}"] if engine.silence else []),
        f"run      {start}",
    ]
    content = {
        "bento": bento.tag,
        "run": service.run or None,
        "note": service.note or None,
        "context": str(written.folder),
        "files": written.files,
        "tag": written.tag,
        "engine": engine.name,
        "is_built": not engine.silence,
        "why_not": engine.silence or None,
        "build_command": typed,
        "run_command": start,
    }
    return CommandResult(content, "\n".join(lines))


class _Service(NamedTuple):
    folder: Path  # of the Bento
    place: Path  # where its build context lies by default
    run: str = ""
    note: str = ""  # what its user must know


@contextmanager
def _service(context: CommandContext) -> Iterator[_Service]:
    """The named Bento, or that of the named or the newest run."""
    named = context.arguments.service
    if named and (folder := bento_folder(named)):
        yield _Service(folder, Path("container"))
        return
    found = find_service(context, named)
    place = context.root / "out" / found.run.mode / found.run.pipeline / "container"
    with fetched(context, found.artifact) as folder:
        yield _Service(folder, place, found.run.run, found.caution)


def _typed(path: Path) -> Path:
    """A path as it is typed in the working directory."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
