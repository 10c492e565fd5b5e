"""A CVAT project or task through its export endpoint: requested, waited for, fetched and unpacked.

The format is `CVAT for images 1.1`, CVAT's own: COCO 1.0 loses attributes, rotations, tags and whether an object is
occluded. Endpoints: https://docs.cvat.ai/docs/api_sdk/ (`…/dataset/export`, `/api/requests/{id}`).
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pipeline.data.fetch.http_client import HttpClient
from pipeline.data.fetch.partial_file import PartialFile
from pipeline.data.sources.api_settings import find
from pipeline.data.sources.file_source import load_files
from pipeline.data.sources.loaded_source import LoadedSource
from pipeline.data.sources.source import ApiSource, FetchOptions, FileSource
from pipeline.errors import DataError, UsageError

log = logging.getLogger(__name__)

FORMAT = "CVAT for images 1.1"


def load_cvat(source: ApiSource, images: Path, annotations: Path, options: FetchOptions) -> LoadedSource:
    """Have a project or task exported with its images, and unpack it.

    A query in its URL, such as `?org=team`, is passed on. An interrupted download continues.
    """
    cache = options.cache / source.cache_name
    with closing(source.client(options)) as client:
        cache.mkdir(parents=True, exist_ok=True)
        url = _exported(client, source.settings.wait_minutes)
        key = hashlib.sha256(f"{client.access.endpoint} {FORMAT}".encode()).hexdigest()
        with PartialFile(cache / f"export-{key[:12]}.zip", key) as part:
            # CVAT keeps an export for hours, and gives it again until something changes: ETag or date tell.
            client.download(url, part)
            try:
                archive = FileSource(str(part.path), is_local=True)
                loaded = load_files(archive, images, annotations, replace(options, cache=cache))
            finally:
                part.discard()
    return replace(loaded, kind="api", url=source.shown, sha256="")


def _exported(client: HttpClient, wait_minutes: float) -> str:
    """Have the export made; returns the URL of its archive."""
    access = client.access
    parts = urlsplit(access.endpoint)
    match = re.fullmatch(r"(.*?)/(projects|tasks)/(\d+)(?:/.*)?", parts.path)
    if match is None:
        raise UsageError("the URL names no project or task", where=access.shown(access.endpoint))
    api = f"{parts.scheme}://{parts.netloc}{match[1]}/api"
    options = {"format": FORMAT, "save_images": "true", "location": "local"} | dict(parse_qsl(parts.query))
    start = f"{api}/{match[2]}/{int(match[3])}/dataset/export?{urlencode(options)}"
    request = find(client.json(start, method="POST").data, "rq_id")
    if not isinstance(request, str) or not request:
        raise DataError("the server does not name the request", where=access.shown(start), expected="an rq_id")
    watch = f"{api}/requests/{quote(request, safe='')}"
    shown = access.shown(watch)
    log.info("%s: waiting for the export", shown)
    end, pause = time.monotonic() + wait_minutes * 60, client.backoff
    while True:
        state = client.json(watch).data
        status, url = find(state, "status"), find(state, "result_url")
        if status == "finished" and isinstance(url, str) and url:
            return access.absolute(url, watch)
        if status in {"finished", "failed"}:
            raise DataError("CVAT could not make the export, or does not say where it is", where=shown)
        if time.monotonic() + pause > end:
            problem = f"the export was not done after {wait_minutes:g} minutes"
            raise DataError(problem, where=shown, remedy="raise api.wait_minutes")
        time.sleep(pause)
        pause = min(pause * 1.5, 10.0)  # seconds
