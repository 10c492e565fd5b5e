"""The command that makes a container image of a packed service."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

from pipeline.cli.command import CommandContext, CommandResult, argument, command
from pipeline.errors import MissingError, StepError

_ENTITY = "bento_service"


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
    with tempfile.TemporaryDirectory(prefix="containerize-") as scratch:
        bento, run, place = _packed(context, Path(scratch, _ENTITY))
        written = write_context(PackedBento.read(bento), arguments.folder or place, tag=arguments.tag, run=run)
    typed = shlex.join(build_command(engine.name, written.folder, written.tag))
    if engine.silence and arguments.engine:
        raise StepError(engine.silence, where=written.folder, remedy=f"where it answers: {typed}")
    if not engine.silence:
        build(engine.name, written.folder, written.tag)
    options = "--rm --read-only --tmpfs /tmp --publish 127.0.0.1:3000:3000"
    starter = "podman" if engine.name == "buildah" else engine.name
    lines = [
        f"context  {written.folder}: {', '.join(written.files)}",
        f"image    {f'none: {engine.silence}' if engine.silence else f'{written.tag}, built by {engine.name}'}",
        *([f"build    {typed}"] if engine.silence else []),
        f"run      {starter} run {options} {written.tag}",
    ]
    content = {
        "run": run or None,
        "context": str(written.folder),
        "files": written.files,
        "tag": written.tag,
        "engine": engine.name,
        "silence": engine.silence,
        "is_built": not engine.silence,
        "build_command": typed,
    }
    return CommandResult(content, "\n".join(lines))


def _packed(context: CommandContext, scratch: Path) -> tuple[Path, str, Path]:
    """The folder of the Bento, the id of its run or an empty text, and where its build context lies by default."""
    named = context.arguments.service
    if named and (Path(named).is_dir() or "/" in named):
        return Path(named), "", Path("container")
    manifest = context.find_run(named)
    artifact = manifest.output(_ENTITY)
    if artifact is None:
        raise MissingError(
            f"run {manifest.run} has not packed a service yet",
            expected=f"a success of the step that makes {_ENTITY}",
            remedy=f"python step.{manifest.mode}.py model_pack --run {manifest.run}",
        )
    context.project.runs.store.get(artifact, scratch)
    return scratch, manifest.run, context.root / "out" / manifest.mode / manifest.pipeline / "container"
