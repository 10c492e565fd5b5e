"""The command that writes a service's detections as pre-labels, to be corrected in a labelling tool."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.command import CommandContext, CommandResult, argument, check_folder_of, command
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
from pipeline.data.writing import FORMATS
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.client.http_client import ServiceClient
    from pipeline.client.image_prediction import Prediction
    from pipeline.client.image_sources import FoundFiles


@command(
    "prelabel",
    "write a packed service's detections as pre-labels for CVAT, Label Studio, FiftyOne and others",
    SERVICE,
    SOURCES,
    argument("--format", choices=FORMATS, required=True, help="what to write"),
    argument("--out", metavar="PATH", type=Path, required=True, help="the file; with yolo a new or empty folder"),
    THRESHOLD,
    argument(
        "--image-prefix",
        metavar="URL",
        help="what stands before an image's name where Label Studio finds it; its local files by default",
    ),
    WORKERS,
)
def _prelabel(context: CommandContext) -> CommandResult:
    from pipeline.client.image_sources import find_files

    arguments = context.arguments
    if arguments.image_prefix is not None and arguments.format != "label-studio":
        raise UsageError(f"{arguments.format} has no URLs of images", where="--image-prefix", remedy="leave it out")
    found = find_files(arguments.sources)  # before anything is started
    _check_output(arguments, found)
    tell_others(found)
    with service_client(context) as client:
        return _prelabel_with(client, found, arguments)


def _check_output(arguments: argparse.Namespace, found: FoundFiles) -> None:
    if arguments.format != "yolo":
        check_output_file(arguments.out, found)
        return
    from pipeline.data.writing.yolo_folder import check_empty, check_names

    check_folder_of(arguments.out)
    check_empty(arguments.out)
    check_names(file.name for file in found.files if file.kind == "image")  # those of archives and videos tell later


def _prelabel_with(client: ServiceClient, found: FoundFiles, arguments: argparse.Namespace) -> CommandResult:
    from pipeline.client.image_prediction import ask_for
    from pipeline.client.served_labels import labelled_image
    from pipeline.data.writing.formats import label_writer
    from pipeline.data.writing.label_studio_file import setup_of

    info = client.info()
    question = ask_for(info, arguments.threshold, [])
    outcome = Outcome(keeps=arguments.json)
    prefix = {} if arguments.image_prefix is None else {"image_prefix": arguments.image_prefix}
    stream: AbstractContextManager[Iterable[Prediction[None]]] = predictions(client, found, question, arguments.workers)
    with label_writer(arguments.format, arguments.out, info.get("classes", []), **prefix) as writer, stream as answers:
        for each in answers:
            outcome.add(each.image.name, each.answer, each.problem)
            if each.answer:
                writer.add(labelled_image(each.image.name, each.answer))
    made = [arguments.out, *([setup_of(arguments.out)] if arguments.format == "label-studio" else [])]
    return outcome.result(made, as_json=arguments.json)
