"""The folder that an image is built from, and the files that run the image."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

import jinja2

from pipeline.containers.bill_of_materials import bill_of_materials
from pipeline.containers.packed_bento import REQUIREMENTS, PackedBento
from pipeline.errors import UsageError
from pipeline.serving.runtimes import RUNTIMES

BILL = "sbom.cdx.json"
_CONTENT = {"Dockerfile", "bento", "requirements.txt", BILL, "compose.yaml", "kubernetes.yaml"}
FILES = ("Dockerfile", "compose.yaml", "kubernetes.yaml")
"""The files that are made of templates of these names."""

# https://pkg.go.dev/github.com/distribution/reference: a registry with its port, a path in lower case, and a tag
_TAG = re.compile(
    r"([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[\w][\w.-]{0,127})?"
)
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("pipeline.containers", "templates"),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
    autoescape=False,  # noqa: S701  # no HTML is made
)
_TEMPLATES.filters["quoted"] = lambda text: json.dumps(str(text), ensure_ascii=False)  # as YAML and Dockerfiles read it


@dataclass(frozen=True)
class BuildContext:
    """A written build context, and the names of the files in it."""

    folder: Path
    tag: str
    files: tuple[str, ...]


def write_context(bento: PackedBento, folder: Path, *, tag: str = "", run: str = "") -> BuildContext:
    """Write the Dockerfile and all that it copies, and the files for Compose and Kubernetes.

    Args:
        bento: The service.
        folder: The folder to write. A build context in it is replaced.
        tag: The image's name and tag, by default the Bento's.
        run: The id of the run that the Bento is of, or an empty text; `/info` and a label of the image show it.

    Raises:
        UsageError: The folder has other files in it, or the tag is not one.
    """
    tag = tag or bento.tag
    if not _TAG.fullmatch(tag):
        raise UsageError(f"{tag!r} is no name of an image", expected="NAME:TAG, the name in lower case")
    if folder.resolve().is_relative_to(bento.folder.resolve()):
        raise UsageError(
            "the build context would lie in the Bento that it copies",
            where=folder,
            expected="a folder outside of it",
            remedy="name another folder with --context",
        )
    if folder.exists() and not (folder.is_dir() and {each.name for each in folder.iterdir()} <= _CONTENT):
        raise UsageError(
            "the build context would replace other files",
            where=folder,
            expected="a new or empty folder, or an earlier build context",
            remedy="name another folder with --context",
        )
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        draft.mkdir(parents=True)
        _fill(draft, bento, tag, run)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return BuildContext(folder, tag, tuple(sorted(each.name for each in folder.iterdir())))


def _fill(folder: Path, bento: PackedBento, tag: str, run: str) -> None:
    shutil.copytree(bento.folder, folder / "bento")
    shutil.copyfile(bento.folder / REQUIREMENTS, folder / "requirements.txt")
    bill = json.dumps(bill_of_materials(bento), indent=2, ensure_ascii=False)
    (folder / BILL).write_text(bill + "\n", encoding="utf-8")
    runtime = RUNTIMES[bento.model.runtime]
    gpu = bool(runtime.gpu_packages)
    for name in FILES:
        text = _TEMPLATES.get_template(f"{name}.j2").render(
            bento=bento,
            tag=tag,
            labels=_labels(bento, run),
            run=run,
            gpu=gpu,
            c_library=runtime.engine == "onnxruntime" and not gpu,
        )
        (folder / name).write_text(text, encoding="utf-8")
    for path in (folder, *folder.rglob("*")):  # the image's user is another one, whatever this one's umask is
        path.chmod(0o755 if path.is_dir() else 0o644)


def _labels(bento: PackedBento, run: str) -> dict[str, str]:
    """The image's labels, in part those of the OCI: https://specs.opencontainers.org/image-spec/annotations/."""
    facts = bento.facts
    labels = {
        "org.opencontainers.image.title": bento.name,
        "org.opencontainers.image.description": bento.title,
        "org.opencontainers.image.version": bento.version,
        "org.opencontainers.image.revision": facts.get("commit", ""),
        "org.opencontainers.image.created": facts.get("created", ""),
        "detection-pipeline.run": run,
        "detection-pipeline.eval-map": facts.get("eval_mAP", ""),
        "detection-pipeline.model-sha256": bento.model.onnx_sha256,
    }
    return {name: value for name, value in labels.items() if value}
