"""A CVAT project or task through its export endpoint: requested, waited for, fetched and unpacked.

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
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pipeline.data.fetch.http_client import HttpClient, HttpStatusError
from pipeline.data.fetch.partial_file import PartialFile
from pipeline.data.sources.file_source import load_files
from pipeline.data.sources.json_paths import find
from pipeline.data.sources.loaded_source import LoadedSource
from pipeline.data.sources.source import CvatSource, FetchOptions, FileSource
from pipeline.errors import DataError, UsageError

log = logging.getLogger(__name__)

FORMAT = "CVAT for images 1.1"
_STATUS_BYTES = 1 << 22  # of an answer that tells the state of the export
_LONGEST_PAUSE = 10.0  # seconds between two questions about it


def load_cvat(source: CvatSource, images: Path, annotations: Path, options: FetchOptions) -> LoadedSource:
    """Have a project or task exported with its images, and unpack it.

    Args:
        source: The project or task; a query in its URL, such as `?org=team`, is passed on.
        images: The folder for images.
        annotations: The folder for CVAT's `annotations.xml`.
        options: How to fetch. The archive is in the cache meanwhile; an interrupted download continues there.

    Raises:
        UsageError: The URL names no project or task, or the server wants another token.
        MissingError: There is no such project or task.
        DataError: The export fails, or what comes is not an archive of images.
    """
    cache = options.cache / source.cache_name
    with closing(source.client(options)) as client:
        access = client.access
        site, what, query = _target(access.endpoint, access.shown(access.endpoint))
        cache.mkdir(parents=True, exist_ok=True)
        url = _Export(client, site, what, query, source.settings.wait_minutes * 60).url()
        key = hashlib.sha256(f"{access.endpoint} {FORMAT}".encode()).hexdigest()
        with PartialFile(cache / f"export-{key[:12]}.zip", key) as part:
            # CVAT keeps an export for hours, and gives it again until something changes: ETag or date tell.
            client.download(url, part)
            try:
                archive = FileSource(str(part.path), is_local=True)
                loaded = load_files(archive, images, annotations, replace(options, cache=cache))
            finally:
                part.discard()
    return replace(loaded, kind="api", url=source.shown, sha256="")


@dataclass(frozen=True)
class _Export:
    """An export to be made; `what` is such as `projects/7`, `patience` the seconds that it may take."""

    client: HttpClient
    site: str
    what: str
    query: Mapping[str, str]
    patience: float

    def url(self) -> str:
        """Have the export made; returns the URL of its archive."""
        try:
            return self._requested()
        except HttpStatusError as refused:
            if refused.status not in {404, 405}:
                raise
            try:
                return self._requested_from_older_server()
            except HttpStatusError:
                raise refused from None

    def _requested(self) -> str:
        options = {"format": FORMAT, "save_images": "true", "location": "local"} | dict(self.query)
        start = f"{self.site}/api/{self.what}/dataset/export?{urlencode(options)}"
        request = find(self.client.json(start, method="POST", max_bytes=_STATUS_BYTES).data, "rq_id")
        if not isinstance(request, str) or not request:
            raise DataError("the server does not name the request", where=self._shown(start), expected="an rq_id")
        watch = f"{self.site}/api/requests/{quote(request, safe='')}"
        for _ in self._pauses(watch):
            state = self.client.json(watch, max_bytes=_STATUS_BYTES).data
            status = find(state, "status")
            if status == "failed":
                remedy = "see CVAT's requests"
                raise DataError("CVAT could not make the export", where=self._shown(watch), remedy=remedy)
            if status == "finished":
                url = find(state, "result_url")
                if not isinstance(url, str) or not url:
                    raise DataError("CVAT made the export, but does not say where it is", where=self._shown(watch))
                return self.client.access.absolute(url, watch)
        raise self._too_long(watch)

    def _requested_from_older_server(self) -> str:
        """An older server answers 202 while it makes the export, and 201 when it is there."""
        options = {"format": FORMAT} | dict(self.query)
        start = f"{self.site}/api/{self.what}/dataset?{urlencode(options)}"
        for _ in self._pauses(start):
            if self.client.json(start, max_bytes=_STATUS_BYTES).status == 201:
                return f"{start}&action=download"
        raise self._too_long(start)

    def _pauses(self, watch: str) -> Iterator[None]:
        """Give turns at growing intervals until the time is over."""
        log.info("%s: waiting for the export", self._shown(watch))
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
        problem = f"the export was not done after {self.patience / 60:g} minutes"
        return DataError(problem, where=self._shown(watch), remedy="raise api.wait_minutes")


def _target(endpoint: str, shown: str) -> tuple[str, str, dict[str, str]]:
    """The site's URL, what to export, and the query."""
    parts = urlsplit(endpoint)
    match = re.fullmatch(r"(.*?)/(projects|tasks)/(\d+)(?:/.*)?", parts.path)
    if match is None:
        expected = "…host/projects/7 or …host/tasks/7"
        raise UsageError("the URL names no project or task", where=shown, expected=expected)
    site = f"{parts.scheme}://{parts.netloc}{match[1]}"
    return site, f"{match[2]}/{int(match[3])}", dict(parse_qsl(parts.query))
