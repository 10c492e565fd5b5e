"""What `predict` and `prelabel` share: a client of the named service, checks of the output, the stream of answers."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.cli.command import CommandContext, argument, check_file_to_write
from pipeline.cli.printing import count
from pipeline.commands.named_service import service_at
from pipeline.errors import MissingError, UsageError

if TYPE_CHECKING:
    from pipeline.client.http_client import ServedImage, ServiceClient
    from pipeline.client.image_prediction import Prediction, Question
    from pipeline.client.image_sources import FoundFiles, NamedImage

T = TypeVar("T")

log = logging.getLogger(__name__)


def _workers(typed: str) -> int:
    if not typed.isdigit() or not 1 <= int(typed) <= 64:
        raise argparse.ArgumentTypeError("a number from 1 to 64")
    return int(typed)


SERVICE = argument("service", help="a run, such as latest; the folder of a Bento; or the address of a running service")
SOURCES = argument(
    "sources", nargs="+", metavar="SOURCE", help="an image, a folder, a pattern in quotes, an archive, a video"
)
THRESHOLD = argument("--threshold", type=float, metavar="X", help="the lowest score; the service's own by default")
WORKERS = argument("--workers", type=_workers, metavar="N", default=4, help="requests at once (4)")


@contextmanager
def service_client(context: CommandContext) -> Iterator[ServiceClient]:
    """A client of the named service, which is started for it unless it is running already."""
    from pipeline.client.http_client import ServiceClient

    arguments = context.arguments
    with service_at(context, arguments.service) as url, closing(ServiceClient(url, arguments.workers)) as client:
        try:
            client.check_address()
        except MissingError as error:
            remedy = "start one, in another terminal: python -m pipeline serve"
            raise MissingError(error.problem, where=url, expected=error.expected, remedy=remedy) from error
        yield client


def check_output_file(path: Path, found: FoundFiles) -> None:
    """Raise a `UsageError` where a file cannot be written, or would replace a source."""
    check_file_to_write(path)
    if any(file.path.resolve() == path.resolve() for file in found.files):
        raise UsageError("the output would replace a source", where=path, remedy="choose another name")


def tell_others(found: FoundFiles) -> None:
    """Log how many files of the sources are no images."""
    if found.others:
        log.info("%s left out, which are no images", count(found.others, "file"))


@contextmanager
def predictions(
    client: ServiceClient,
    found: FoundFiles,
    question: Question,
    workers: int,
    finish: Callable[[NamedImage, bytes, ServedImage], T] | None = None,
) -> Iterator[Iterable[Prediction[T]]]:
    """The answers for the found images, in their order, with a bar of progress; see `predict_images`."""
    from tqdm import tqdm

    from pipeline.client.image_prediction import predict_images
    from pipeline.client.image_sources import read_images

    with ExitStack() as stack:
        unpacked = tempfile.TemporaryDirectory(prefix="predict-", ignore_cleanup_errors=True)
        images = stack.enter_context(closing(read_images(found.files, Path(stack.enter_context(unpacked)))))
        answers = stack.enter_context(closing(predict_images(client, images, question, workers=workers, finish=finish)))
        yield tqdm(answers, "predict", found.images, unit="img", mininterval=0.5, ascii=True, leave=False)
