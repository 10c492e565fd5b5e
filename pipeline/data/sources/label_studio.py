"""A Label Studio project through its export endpoint: rectangles and polygons of the best annotation of each task.

Endpoints: https://labelstud.io/guide/access_tokens, https://api.labelstud.io (projects, easy export). Format:
https://labelstud.io/guide/task_format and https://labelstud.io/tags/rectanglelabels: percent of the image's size,
a rotation in degrees, clockwise, about the top left corner.
"""

from __future__ import annotations

import base64
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from pipeline.data.fetch.http_client import HttpClient
from pipeline.data.fetch.image_cache import ImageCache
from pipeline.data.sources.api_dataset import write_raw
from pipeline.data.sources.api_images import Pictures
from pipeline.data.sources.api_records import Record, as_number, read_extra
from pipeline.data.sources.api_settings import ApiSettings
from pipeline.data.sources.json_paths import find, kind, need
from pipeline.data.sources.label_studio_regions import declared_size, read_regions
from pipeline.data.sources.loaded_source import UNLABELLED, Raw, Skipped
from pipeline.errors import DataError, UsageError

logger = logging.getLogger(__name__)

_STORAGES = ("s3://", "gs://", "azure-blob://", "azure_spi://", "redis://")
_BATCH = 100  # tasks whose images are fetched together
_SMALL = 1 << 20  # bytes, of an answer that holds a token


def load_label_studio(
    client: HttpClient,
    images: Path,
    markup: Path,
    *,
    cache: ImageCache,
    settings: ApiSettings,
    with_unannotated: bool = False,
) -> Raw:
    """Take a project's labelled tasks.

    Of a task's annotations the ground truth counts, else the one changed last; cancelled ones never do. A rotated
    rectangle becomes the upright box around it, its corners the polygon. Tasks without an annotation are left out, or
    taken as images that nobody annotated; one whose annotation is empty is an image with nothing on it.

    Args:
        client: Its endpoint is `https://host/projects/12`.
        images: Where the images go.
        markup: Where the COCO file goes.
        cache: Where images are kept.
        settings: `image` (the key of the image in a task's data, where there are several), `metadata`.
        with_unannotated: Whether to take tasks without an annotation.

    Raises:
        UsageError: The URL names no project, or the server wants another token.
        MissingError: There is no such project.
        DataError: The export is none, or holds no image.
    """
    endpoint = client.access.shown(client.access.endpoint)
    site, project = _project(client.access.endpoint, endpoint)
    _exchange_personal_token(client, site)
    export = f"{site}/api/projects/{project}/export?exportType=JSON"
    tasks = client.json(export, max_bytes=settings.max_page_mb << 20).data
    if not isinstance(tasks, list):
        raise DataError(f"The export is {kind(tasks)}", where=client.access.shown(export), expected="a list of tasks")
    places = [f"task {_id(task, index)} of {endpoint}" for index, task in enumerate(tasks)]
    read = [
        read_task(task, settings, where=where, with_unannotated=with_unannotated)
        for task, where in zip(tasks, places, strict=True)
    ]
    records = [replace(each, url=_below(site, each.url)) for each in read if isinstance(each, Record)]
    _tell_of_hulls(records)
    found = []
    with Pictures(client, cache) as pictures:
        for start in range(0, len(records), _BATCH):
            found += pictures.get(records[start : start + _BATCH], site + "/")
    skipped = [each for each in read if isinstance(each, Skipped)] + pictures.skipped
    raw = write_raw(found, images, markup, url=endpoint, skipped=skipped)
    cache.finish()
    return replace(raw, unannotated=sum(each.reason == UNLABELLED for each in skipped))


def read_task(task: Any, settings: ApiSettings, *, where: str, with_unannotated: bool = False) -> Record | Skipped:
    """Read a task of an export.

    Raises:
        DataError: It is no task, or it is not clear which of its data is the image.
    """
    data = need(task, "data", setting="items", where=where)
    annotation = _best(find(task, "annotations"))
    if annotation is None and not with_unannotated:
        return Skipped(where, UNLABELLED)
    results = [each for each in (annotation or {}).get("result") or () if isinstance(each, dict)]
    if any(as_number(each.get("image_rotation")) for each in results):
        return Skipped(where, "it was labelled on a turned image, and which way its boxes lie is not documented")
    reference = _reference(data, results, settings, where)
    shapes, left_out = read_regions(results, where)
    url, name = _image(reference, find(task, "id"))
    size, extra = declared_size(results), read_extra(data, settings)
    return Record(where, url, b"", name, reference, size, shapes, "", extra, left_out, annotated=annotation is not None)


def _below(site: str, reference: str) -> str:
    """A path from the root as one below the site, which a proxy may have put into a folder."""
    folder = urlsplit(site).path
    is_root = reference.startswith("/") and not reference.startswith(("//", f"{folder}/") if folder else "//")
    return folder + reference if is_root else reference


def _tell_of_hulls(records: list[Record]) -> None:
    turned = sum(bool(shape.polygon) for record in records for shape in record.shapes)
    if turned:
        logger.info("%d rotated rectangles and polygons became the upright boxes around them", turned)


def _project(endpoint: str, shown: str) -> tuple[str, int]:
    """The site's URL and the project's number."""
    match = re.fullmatch(r"(https?://[^?#]*?)/projects/(\d+)(?:[/?#].*)?", endpoint, re.IGNORECASE)
    if match is None:
        raise UsageError("The URL names no project", where=shown, expected="…host/projects/12")
    return match[1], int(match[2])


def _id(task: Any, index: int) -> str:
    own = find(task, "id")
    return str(own) if isinstance(own, int) else f"number {index}"


def _exchange_personal_token(client: HttpClient, site: str) -> None:
    """Where the token is a personal one, a JWT, get one of those that open doors, now and whenever it has expired.

    Those live for minutes; the personal one does nothing but get them. The older kind of token is plain hexadecimal.
    """
    token = client.access.token
    if not (token.startswith("eyJ") and token.count(".") == 2):
        return
    asking = replace(client, access=client.access.unsigned(), renew=None)
    url = f"{site}/api/token/refresh"

    def renew() -> None:
        access = find(asking.json(url, method="POST", body={"refresh": token}, max_bytes=_SMALL).data, "access")
        if not isinstance(access, str) or not re.fullmatch(r"[!-~]+", access):
            raise DataError(
                "The server gave no access token", where=client.access.shown(url), expected="one in 'access'"
            )
        client.access.replace(access)

    renew()
    client.renew = renew


def _best(annotations: Any) -> dict[str, Any] | None:
    """The ground truth, or the annotation changed last; of those alike the one with the highest number."""
    there = [each for each in annotations if isinstance(each, dict)] if isinstance(annotations, list) else []
    valid = [each for each in there if not each.get("was_cancelled")]
    return max(valid, key=_rank, default=None)


def _rank(annotation: dict[str, Any]) -> tuple[bool, str, float]:
    changed = annotation.get("updated_at") or annotation.get("created_at") or ""
    return bool(annotation.get("ground_truth")), str(changed), as_number(annotation.get("id")) or 0.0


def _reference(data: Any, results: list[dict[str, Any]], settings: ApiSettings, where: str) -> str:
    """The image's URL in a task's data: as set, as the results name it, or the only one there is."""
    if settings.image != ".":
        found = need(data, settings.image, setting="image", where=where)
    else:
        there = data if isinstance(data, dict) else {}
        named = {str(each.get(key, "")).removeprefix("$") for each in results for key in ("source", "to_name")}
        keys = sorted(key for key in named if _is_reference(there.get(key)))
        keys = keys or [key for key, value in there.items() if _is_reference(value)]
        if len(keys) != 1:
            problem = f"The task has {'several URLs' if keys else 'no URL'} in its data"
            remedy = f"set api.image to one of: {', '.join(keys or list(there))[:200]}"
            raise DataError(problem, where=where, expected="one, that of the image", remedy=remedy)
        found = there[keys[0]]
    if not isinstance(found, str):
        raise DataError(f"The image is {kind(found)}", where=where, expected="a URL")
    return found


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and value.lower().startswith(("http://", "https://", "/", "data/", *_STORAGES))


def _image(reference: str, task_id: Any) -> tuple[str, str]:
    """The URL to fetch, and the name where the URL does not end in it.

    What lies in a cloud storage is asked for through Label Studio, which may read there where we may not.
    """
    if reference.lower().startswith(_STORAGES):
        wrapped = quote(base64.b64encode(reference.encode()).decode(), safe="")
        return f"/tasks/{task_id}/resolve/?fileuri={wrapped}", ""
    if urlsplit(reference).path.rstrip("/").endswith("data/local-files"):
        return reference, parse_qs(urlsplit(reference).query).get("d", [""])[0].lstrip("/")
    return reference, ""
