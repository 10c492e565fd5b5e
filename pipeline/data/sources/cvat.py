"""A CVAT project or task through its export endpoint: asked for, waited for, fetched and unpacked.

The format is `CVAT for images 1.1`, CVAT's own: COCO 1.0 loses attributes, rotations, tags and whether an object is
occluded. Endpoints: https://docs.cvat.ai/docs/api_sdk/ (`…/dataset/export`, `/api/requests/{id}`); older servers
answer at `…/dataset` instead.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pipeline.data.fetch.http_client import HttpClient
from pipeline.data.fetch.http_responses import RefusedError
from pipeline.data.fetch.partial_file import PartialFile
from pipeline.data.sources.api_settings import ApiSettings
from pipeline.data.sources.file_source import load_files
from pipeline.data.sources.json_paths import find
from pipeline.data.sources.loaded_source import Raw
from pipeline.errors import DataError, UsageError

logger = logging.getLogger(__name__)

FORMAT = "CVAT for images 1.1"
_SMALL = 1 << 22  # bytes, of an answer that tells how far the export is
_LONGEST_PAUSE = 10.0  # seconds between two questions whether it is done


def load_cvat(client: HttpClient, images: Path, markup: Path, *, cache: Path, settings: ApiSettings) -> Raw:
    """Have a project or task exported with its images, and unpack it.

    Args:
        client: Its endpoint is `https://host/projects/7` or `https://host/tasks/7`; a query such as `?org=team` is
            passed on.
        images: Where the images go.
        markup: Where CVAT's `annotations.xml` goes.
        cache: Where the archive lies meanwhile; what came of one whose download broke off is kept for the next run.
        settings: `wait_minutes`.

    Raises:
        UsageError: The URL names neither, or the server wants another token.
        MissingError: There is no such project or task.
        DataError: The export fails, or what comes is no archive of images.
    """
    site, what, query = _source(client.access.endpoint, client.access.shown(client.access.endpoint))
    cache.mkdir(parents=True, exist_ok=True)
    url = _Export(client, site, what, query, settings.wait_minutes * 60).url()
    key = hashlib.sha256(f"{client.access.endpoint} {FORMAT}".encode()).hexdigest()
    with PartialFile(cache / f"export-{key[:12]}.zip", key) as part:
        # CVAT keeps an export for hours and gives it again as long as nothing has changed: the ETag or date tells.
        client.download(url, part)
        try:
            return load_files(str(part.path), images, markup, cache=cache)
        finally:
            part.discard()


@dataclass(frozen=True)
class _Export:
    """An export to be made; `what` is such as `projects/7`, `patience` the seconds it may take."""

    client: HttpClient
    site: str
    what: str
    query: Mapping[str, str]
    patience: float

    def url(self) -> str:
        """Have the export made; returns where its archive is."""
        try:
            return self._requested()
        except RefusedError as refused:
            if refused.status not in {404, 405}:
                raise
            try:
                return self._requested_as_once()
            except RefusedError:
                raise refused from None

    def _requested(self) -> str:
        options = {"format": FORMAT, "save_images": "true", "location": "local"} | dict(self.query)
        start = f"{self.site}/api/{self.what}/dataset/export?{urlencode(options)}"
        answer = self.client.json(start, method="POST", max_bytes=_SMALL)
        request = find(answer.data, "rq_id")
        if not isinstance(request, str) or not request:
            raise DataError(
                "The server does not say which request is ours", where=self._shown(start), expected="an rq_id"
            )
        watch = f"{self.site}/api/requests/{quote(request, safe='')}"
        for _ in self._pauses(watch):
            state = self.client.json(watch, max_bytes=_SMALL).data
            status = find(state, "status")
            if status == "failed":
                raise DataError(
                    "CVAT could not make the export", where=self._shown(watch), remedy="see CVAT's requests"
                )
            if status == "finished":
                return self._result(find(state, "result_url"), watch)
        raise self._too_long(watch)

    def _result(self, url: object, watch: str) -> str:
        if not isinstance(url, str) or not url:
            raise DataError("CVAT made the export, but does not say where it is", where=self._shown(watch))
        return self.client.access.absolute(url, watch)

    def _requested_as_once(self) -> str:
        """Ask an older server: 202 while the export is being made, 201 when it can be had."""
        options = {"format": FORMAT} | dict(self.query)
        start = f"{self.site}/api/{self.what}/dataset?{urlencode(options)}"
        for _ in self._pauses(start):
            if self.client.json(start, max_bytes=_SMALL).status == 201:
                return f"{start}&action=download"
        raise self._too_long(start)

    def _pauses(self, watch: str) -> Iterator[None]:
        """Come back at growing intervals, as long as patience lasts."""
        logger.info("%s: waiting for the export", self._shown(watch))
        end, pause = time.monotonic() + self.patience, self.client.backoff
        while True:
            yield
            if time.monotonic() + pause > end:
                return
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _shown(self, url: str) -> str:
        return self.client.access.shown(url)

    def _too_long(self, watch: str) -> DataError:
        problem = f"The export was not done after {self.patience / 60:g} minutes"
        return DataError(problem, where=self._shown(watch), remedy="raise api.wait_minutes")


def _source(endpoint: str, shown: str) -> tuple[str, str, dict[str, str]]:
    """The site's URL, what to export, and the query."""
    parts = urlsplit(endpoint)
    match = re.fullmatch(r"(.*?)/(projects|tasks)/(\d+)(?:/.*)?", parts.path)
    if match is None:
        expected = "…host/projects/7 or …host/tasks/7"
        raise UsageError("The URL names no project or task", where=shown, expected=expected)
    site = f"{parts.scheme}://{parts.netloc}{match[1]}"
    return site, f"{match[2]}/{int(match[3])}", dict(parse_qsl(parts.query))
