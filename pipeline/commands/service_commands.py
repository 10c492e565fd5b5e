"""The commands of `python -m pipeline` that use a packed service: `predict` and `serve`.

Modules that only one command needs are imported in its function, so that no command waits for another's imports.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.command import CommandContext, CommandResult, argument, command, print_result
from pipeline.cli.printing import count
from pipeline.commands.named_service import (
    bento_folder,
    fetched,
    find_service,
    find_test_image,
    is_address,
    newest_complete,
    packed_service,
    settings_of,
)
from pipeline.commands.prediction_outcome import Outcome
from pipeline.commands.service_prediction import (
    SERVICE,
    SOURCES,
    THRESHOLD,
    WORKERS,
    check_output_file,
    predictions,
    service_client,
    tell_others,
)
from pipeline.errors import MissingError, StepError, UsageError

if TYPE_CHECKING:
    from pipeline.client.http_client import ServiceClient
    from pipeline.client.image_sources import FoundFiles
    from pipeline.client.model_switching import Release

SERVE_HOST, SERVE_PORT = "127.0.0.1", 3000

log = logging.getLogger(__name__)


def _port(typed: str) -> int:
    if not typed.isdigit() or int(typed) > 65535:
        raise argparse.ArgumentTypeError("a number from 0 to 65535")
    return int(typed)


@command(
    "predict",
    "detect objects in images with a packed service, which is started for it or is running already",
    SERVICE,
    SOURCES,
    argument("--out", metavar="FILE", type=Path, help="write a COCO dataset with the detections and their scores"),
    argument("--draw", metavar="DIR", type=Path, help="write the images and videos with their boxes drawn"),
    THRESHOLD,
    argument("--classes", metavar="A,B", default="", help="only these classes"),
    WORKERS,
)
def _predict(context: CommandContext) -> CommandResult:
    from pipeline.client.image_sources import find_files

    arguments = context.arguments
    found = _without_drawn(find_files(arguments.sources), arguments.draw)  # before anything is started
    _check_outputs(arguments, found)
    with service_client(context) as client:
        return _predict_with(client, found, arguments)


def _without_drawn(found: FoundFiles, drawn: Path | None) -> FoundFiles:
    """Without the images that an earlier command has drawn among its sources."""
    files = tuple(file for file in found.files if not (drawn and file.path.resolve().is_relative_to(drawn.resolve())))
    if not files or len(files) == len(found.files):
        return found
    log.info("%s in %s left out", count(len(found.files) - len(files), "image"), drawn)
    return replace(found, files=files)


def _check_outputs(arguments: argparse.Namespace, found: FoundFiles) -> None:
    if arguments.out is not None:
        check_output_file(arguments.out, found)
    if arguments.draw is not None and arguments.draw.exists() and not arguments.draw.is_dir():
        raise UsageError("the place for drawn images is a file", where=arguments.draw, expected="a folder")
    tell_others(found)


def _predict_with(client: ServiceClient, found: FoundFiles, arguments: argparse.Namespace) -> CommandResult:
    from pipeline.client.drawing import Drawer
    from pipeline.client.image_prediction import ask_for
    from pipeline.client.served_labels import labelled_image
    from pipeline.data.writing.coco_file import coco_file

    info = client.info()
    classes = info.get("classes", [])
    wanted = [arguments.classes] if arguments.classes in classes else arguments.classes.split(",")
    question = ask_for(info, arguments.threshold, [name.strip() for name in wanted if name.strip()])
    made = [path for path in (arguments.out, arguments.draw) if path]
    outcome = Outcome(keeps=not made or arguments.json)
    with ExitStack() as stack:
        drawer = stack.enter_context(Drawer(arguments.draw, classes)) if arguments.draw else None
        if drawer:
            drawer.check(found.files)
        writer = stack.enter_context(coco_file(arguments.out, classes)) if arguments.out else None
        draw = drawer.draw if drawer else None
        for each in stack.enter_context(predictions(client, found, question, arguments.workers, draw)):
            outcome.add(each.image.name, each.answer, each.problem)
            if writer and each.answer:
                writer.add(labelled_image(each.image.name, each.answer))
            if drawer:
                drawer.add(each)
    return outcome.result(made, as_json=arguments.json)


@command(
    "serve",
    "serve a run's packed model in the foreground until Ctrl-C",
    argument(
        "service", nargs="?", help="a run, or the folder of a Bento; the newest run with a packed model by default"
    ),
    argument("--host", default=SERVE_HOST, help=f"the address to listen at ({SERVE_HOST}); 0.0.0.0 for all"),
    argument("--port", type=_port, metavar="N", default=SERVE_PORT, help=f"the port ({SERVE_PORT}); 0 for a free one"),
    argument(
        "--watch", action="store_true", help="replace the model by that of each newer complete run, losing no request"
    ),
)
def _serve(context: CommandContext) -> CommandResult:
    from pipeline.client.model_switching import Release
    from pipeline.client.service_process import check_port

    arguments = context.arguments
    if arguments.service and is_address(arguments.service):
        raise UsageError("a running service cannot be served again", expected="a run, or the folder of a Bento")
    folder = bento_folder(arguments.service) if arguments.service else None
    if folder and arguments.watch:
        raise UsageError("a folder has no newer runs to watch for", where=folder, expected="a run with --watch")
    if arguments.port:
        check_port(arguments.host, arguments.port)  # before anything is started
    if folder:
        _serve_one(arguments, Release("", "", lambda: nullcontext(folder), settings_of()), folder)
        return CommandResult({}, "")
    found = find_service(context, _run_to_serve(context))
    found.warn()
    run = found.run
    with fetched(context, found.artifact) as packed:  # to the end, since the printed command names its test image
        release = Release(run.run, found.artifact.digest, lambda: nullcontext(packed), settings_of(run.run))
        if arguments.watch:
            _serve_newest(context, run.pipeline, release, packed)
        else:
            _serve_one(arguments, release, packed)
    return CommandResult({}, "")


def _run_to_serve(context: CommandContext) -> str | None:
    """The name of the run; where newer ones are watched, the latest is the newest complete one."""
    service: str | None = context.arguments.service
    if not context.arguments.watch or service not in (None, "latest"):
        return service
    if found := newest_complete(context, context.pipeline):
        return found.run
    newest = context.find_run("latest")  # which says what to do where there is none
    remedy = f"python step.{newest.mode}.py --run {newest.run}"
    raise MissingError("no run is complete", where=context.project.runs.store.url, remedy=remedy)


def _serve_one(arguments: argparse.Namespace, release: Release, folder: Path) -> None:
    from pipeline.client.service_process import serve

    echo = sys.stderr.buffer
    at: dict[str, Any] = {"host": arguments.host, "port": arguments.port}
    with serve(folder, environment=release.environment, echo=echo, **at) as service:
        _announce(release, service.url, folder)
        while service.is_alive:
            time.sleep(1)
    raise StepError("the service has ended by itself", where=folder, remedy="read its output above")


def _serve_newest(context: CommandContext, pipeline: str, release: Release, folder: Path) -> None:
    from pipeline.client.model_switching import Release, SwitchingService, keep_newest
    from pipeline.client.service_process import listening_socket, reached_at
    from pipeline.client.switching_proxy import SwitchingProxy
    from pipeline.evaluation.prediction import check_test_image

    def newest() -> Release | None:
        run = newest_complete(context, pipeline, after=service.name)
        if run is None:
            return None
        artifact = packed_service(context, run)
        return Release(run.run, artifact.digest, lambda: fetched(context, artifact), settings_of(run.run))

    arguments = context.arguments
    with (
        listening_socket(arguments.host, arguments.port) as listening,
        SwitchingProxy(listening) as proxy,
        SwitchingService(proxy, check_test_image, sys.stderr.buffer) as service,
    ):
        service.start(release)
        _announce(release, reached_at(arguments.host, listening.getsockname()[1]), folder)
        keep_newest(service, newest)


def _announce(release: Release, url: str, folder: Path) -> None:
    key = ' -H "Authorization: Bearer $DETECTOR_API_KEY"' if os.environ.get("DETECTOR_API_KEY") else ""
    image = shlex.quote(str(find_test_image(folder).resolve()))
    print_result(
        f"serving {f'run {release.name}' if release.name else folder} at {url}\n"
        f"  page  {url}/\n"
        f'  try   curl{key} -F images=@{image} "{url}/predict?score_threshold=0.5"\n'
        "  stop  Ctrl-C"
    )
