"""A Label Studio project through its export endpoint: rectangles and polygons of the best annotation of each task.

Endpoints: https://labelstud.io/guide/access_tokens, https://api.labelstud.io (projects, easy export). Format:
https://labelstud.io/guide/task_format and https://labelstud.io/tags/rectanglelabels: percent of the image's size,
a rotation in degrees, clockwise, about the top left corner.
"""

from __future__ import annotations

import base64
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from pipeline.data.boxes import Point
from pipeline.data.fetch.credentials import Access, token_from
from pipeline.data.fetch.http_client import HttpClient
from pipeline.data.parsed import NOT_A_BOX, ParsedBox, ParsedImage
from pipeline.data.sources.api_images import ApiRecord, as_number, load_records, read_extra
from pipeline.data.sources.api_settings import ABSENT, ApiSettings, find, kind, need
from pipeline.data.sources.loaded_source import UNLABELLED, LoadedSource, Skipped
from pipeline.data.sources.source import ApiSource, FetchOptions
from pipeline.errors import DataError, UsageError

_STORAGES = ("s3://", "gs://", "azure-blob://", "azure_spi://", "redis://")
_REFERENCES = ("http://", "https://", "/", "data/", *_STORAGES)
_BATCH = 100  # tasks whose images are fetched together


def load_label_studio(source: ApiSource, images: Path, annotations: Path, options: FetchOptions) -> LoadedSource:
    """Take a project's labelled tasks; see `load_records`.

    Of a task's annotations the ground truth counts, otherwise the one changed last; cancelled ones never do. A rotated
    rectangle becomes the upright box around it, with its corners as the polygon. Tasks without an annotation are
    skipped, or taken as images that nobody annotated; a task whose annotation is empty is an image without objects.
    """

    def pages(client: HttpClient) -> Iterator[tuple[list[ApiRecord | Skipped], str]]:
        endpoint = client.access.shown(client.access.endpoint)
        match = re.fullmatch(r"(https?://[^?#]*?)/projects/(\d+)(?:[/?#].*)?", client.access.endpoint, re.IGNORECASE)
        if match is None:
            raise UsageError("the URL names no project", where=endpoint, expected="…host/projects/12")
        site = match[1]
        _exchange_personal_token(client, site, token_from(source.settings.token_env))
        export = f"{site}/api/projects/{int(match[2])}/export?exportType=JSON"
        tasks = client.json(export).data
        if not isinstance(tasks, list):
            raise DataError(f"the export is {kind(tasks)}", where=endpoint, expected="a list of tasks")
        for start in range(0, len(tasks), _BATCH):
            records = []
            for number, task in enumerate(tasks[start : start + _BATCH], start):
                found = find(task, "id")
                name = f"task {number if found is ABSENT else found} of {endpoint}"
                records += read_task(task, source, name, site)
            yield records, site + "/"

    return load_records(source, images, annotations, options, pages, in_pixels=False)


def read_task(task: Any, source: ApiSource, where: str, site: str = "") -> list[ApiRecord | Skipped]:
    """Read a task of an export, and list the regions that were left out."""
    data = need(task, "data", setting="items", where=where)
    annotation = _best(find(task, "annotations"))
    if annotation is None and not source.with_unannotated:
        return [Skipped(where, UNLABELLED)]
    results = [each for each in (annotation or {}).get("result") or () if isinstance(each, dict)]
    if any(as_number(each.get("image_rotation")) for each in results):
        return [Skipped(where, "it was labelled on a turned image, and the direction of its boxes is not documented")]
    reference = _reference(data, results, source.settings, where)
    boxes, left_out = _regions(results, where)
    url, name = _image(reference, find(task, "id"), urlsplit(site).path)
    width, height = _declared_size(results)
    extra = read_extra(data, source.settings)
    image = ParsedImage(
        name, width, height, boxes, "", annotation is not None, {NOT_A_BOX: len(left_out)} if left_out else {}, extra
    )
    return [ApiRecord(where, image, url, hint=reference), *left_out]


def _exchange_personal_token(client: HttpClient, site: str, token: str) -> None:
    """Exchange a personal token, a JWT, for an access token, now and whenever that has expired.

    Access tokens are valid for minutes; a personal token only serves to get them. Older tokens are plain hexadecimal.
    """
    if not (token.startswith("eyJ") and token.count(".") == 2):
        return
    own = client.access
    asking = replace(client, access=Access(own.endpoint, "", own.remedy, own.hidden), renew=None)
    url = f"{site}/api/token/refresh"

    def renew() -> None:
        access = find(asking.json(url, method="POST", body={"refresh": token}).data, "access")
        if not isinstance(access, str) or not re.fullmatch(r"[!-~]+", access):
            raise DataError("the server gave no access token", where=own.shown(url), expected="one in 'access'")
        own.header = f"Bearer {access}"

    renew()
    client.renew = renew


def _best(annotations: Any) -> dict[str, Any] | None:
    """The ground truth, or the annotation changed last; among equals the one with the highest number."""

    def rank(annotation: dict[str, Any]) -> tuple[bool, str, float]:
        changed = annotation.get("updated_at") or annotation.get("created_at") or ""
        return bool(annotation.get("ground_truth")), str(changed), as_number(annotation.get("id")) or 0.0

    found = [each for each in annotations if isinstance(each, dict)] if isinstance(annotations, list) else []
    return max((each for each in found if not each.get("was_cancelled")), key=rank, default=None)


def _reference(data: Any, results: list[dict[str, Any]], settings: ApiSettings, where: str) -> str:
    """The image's URL in a task's data: as set, as the results name it, or the only one."""
    if settings.image == ".":
        values = data if isinstance(data, dict) else {}
        urls = [key for key, value in values.items() if str(value).lower().startswith(_REFERENCES)]
        named = {str(each.get(key, "")).removeprefix("$") for each in results for key in ("source", "to_name")}
        keys = sorted(named.intersection(urls)) or urls
        if len(keys) != 1:
            problem = f"the task has {'several URLs' if keys else 'no URL'} in its data"
            remedy = f"set api.image to one of: {', '.join(keys or list(values))[:200]}"
            raise DataError(problem, where=where, remedy=remedy)
        return str(values[keys[0]])
    found = need(data, settings.image, setting="image", where=where)
    if not isinstance(found, str):
        raise DataError(f"the image is {kind(found)}", where=where, expected="a URL")
    return found


def _image(reference: str, task_id: Any, folder: str) -> tuple[str, str]:
    """The URL to fetch, and the image's name if the URL does not end in it.

    Files in a cloud storage are requested through Label Studio, which may have access where this machine has not. A
    path from the root is one below the site, which a proxy may have put into a folder.
    """
    if reference.lower().startswith(_STORAGES):
        wrapped = quote(base64.b64encode(reference.encode()).decode(), safe="")
        return f"{folder}/tasks/{task_id}/resolve/?fileuri={wrapped}", ""
    name = ""
    if urlsplit(reference).path.rstrip("/").endswith("data/local-files"):
        name = parse_qs(urlsplit(reference).query).get("d", [""])[0].lstrip("/")
    is_below_root = re.match("/(?!/)", reference) and not (folder and reference.startswith(f"{folder}/"))
    return folder * bool(is_below_root) + reference, name


def _declared_size(results: list[dict[str, Any]]) -> tuple[int, int]:
    """The size in pixels that the boxes refer to; zeros if results differ or do not say."""
    sizes = {(each.get("original_width"), each.get("original_height")) for each in results} - {(None, None)}
    (width, height), *others = sizes or {(0, 0)}
    if others or not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
        return 0, 0
    return width, height


def _regions(results: list[dict[str, Any]], where: str) -> tuple[list[ParsedBox], list[Skipped]]:
    """The rectangles and polygons among results, in fractions of the image's size, and the regions left out."""
    boxes: list[ParsedBox] = []
    left_out: Counter[str] = Counter()
    for result in results:
        name, value = str(result.get("type", "")), result.get("value")
        if not isinstance(value, dict) or not any(key in value for key in ("x", "points", "rle", "vertices")):
            continue  # choices, ratings and texts are about the whole image
        if name not in {"rectanglelabels", "polygonlabels"}:
            left_out[f"of the type '{name[:40]}', which is not taken"] += 1
            continue
        labels = [each for each in value.get(name) or () if isinstance(each, str) and each]
        is_rectangle = name == "rectanglelabels"
        points = _outline(value, is_rectangle=is_rectangle)
        if not labels or points is None:
            left_out["without a label" if points else "without a place"] += 1
            continue
        angle = (as_number(value.get("rotation")) or 0.0) * is_rectangle
        if angle % 360:
            width, height = as_number(result.get("original_width")), as_number(result.get("original_height"))
            points = rotated(points, angle, (width or 1.0) / (height or 1.0))
        elif is_rectangle:
            (x, y), _, (right, bottom), _ = points
            boxes += [ParsedBox(label, (x, y, right - x, bottom - y)) for label in labels]
            continue
        boxes += [ParsedBox.around(label, points) for label in labels]
    return boxes, [Skipped(f"{where}: {n} regions", reason) for reason, n in sorted(left_out.items())]


def _outline(value: dict[str, Any], *, is_rectangle: bool) -> list[Point] | None:
    """The corners of a rectangle or the points of a polygon in fractions; None if they are not that."""
    try:
        if is_rectangle:
            x, y, width, height = (float(value[key]) for key in ("x", "y", "width", "height"))
            points = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        else:
            points = [(float(x), float(y)) for x, y in value["points"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return [(x / 100, y / 100) for x, y in points] if len(points) >= 3 else None


def rotated(points: list[Point], degrees: float, aspect: float) -> list[Point]:
    """Points in fractions of the image's size, turned clockwise as seen about the first one.

    The angle is one in pixels, so it takes the image's aspect, its width divided by its height.
    """
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    left, top = points[0]
    moved = [((x - left) * aspect, y - top) for x, y in points]
    return [(left + (x * cosine - y * sine) / aspect, top + x * sine + y * cosine) for x, y in moved]
