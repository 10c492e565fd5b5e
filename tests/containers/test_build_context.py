"""The build context: its files, each checked by the tool or schema of those who read it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from folders import contents_of

from pipeline.containers.build_context import BuildContext, write_context
from pipeline.containers.packed_bento import PackedBento
from pipeline.errors import UsageError

RUN = "20261129T024627804Z-3be2ec67de"
HARDENED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@pytest.fixture
def written(bento: PackedBento, tmp_path: Path) -> BuildContext:
    """Of the tiny model, for a registry."""
    return write_context(bento, tmp_path / "container", tag="registry.local:5000/shop/detector:1.0", run=RUN)


@pytest.fixture(params=["bento", "for_gpus", "for_openvino", "old"])
def each(request: pytest.FixtureRequest, tmp_path: Path) -> BuildContext:
    """Of each kind of Bento; an old one is of no known run."""
    bento = request.getfixturevalue(request.param)
    return write_context(bento, tmp_path / "container", run="" if request.param == "old" else RUN)


def test_it_holds_all_that_the_dockerfile_copies(written: BuildContext, bento: PackedBento) -> None:
    lines = (written.folder / "Dockerfile").read_text().splitlines()
    copied = {line.split()[1] for line in lines if line.startswith("COPY ") and "--from" not in line}
    assert copied == {"requirements.txt", "bento", "sbom.cdx.json"}
    assert copied | {"Dockerfile", "compose.yaml", "kubernetes.yaml"} == set(written.files)
    assert contents_of(written.folder / "bento") == contents_of(bento.folder)
    required = (written.folder / "requirements.txt").read_text().split()
    assert [tuple(line.split("==")) for line in required] == [*bento.requirements]


def test_the_same_bento_gives_the_same_files(written: BuildContext, bento: PackedBento, tmp_path: Path) -> None:
    again = write_context(bento, tmp_path / "again", tag=written.tag, run=RUN)
    assert contents_of(again.folder) == contents_of(written.folder)


def test_any_user_may_read_it_whatever_the_umask(bento: PackedBento, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        written = write_context(bento, tmp_path / "container")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in written.folder.rglob("*") if path.is_file()}
    folders = {stat.S_IMODE(path.stat().st_mode) for path in written.folder.rglob("*") if path.is_dir()}
    assert (modes, folders) == ({0o644}, {0o755})


def test_hadolint_has_nothing_to_say_of_the_dockerfile(each: BuildContext) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    said = subprocess.run([hadolint, each.folder / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


def test_the_image_says_what_it_is(written: BuildContext, bento: PackedBento, old: PackedBento, tmp_path: Path) -> None:
    def labels(folder: Path) -> dict[str, str]:
        lines = (folder / "Dockerfile").read_text().splitlines()
        pairs = [line.removeprefix("LABEL ").split("=", 1) for line in lines if line.startswith("LABEL ")]
        return {name: json.loads(value) for name, value in pairs}

    assert labels(written.folder) == {
        "org.opencontainers.image.title": "object_detector",
        "org.opencontainers.image.description": "YOLOX-nano, 2 classes",
        "org.opencontainers.image.version": bento.version,
        "org.opencontainers.image.revision": "ab" * 20,
        "org.opencontainers.image.created": "2026-11-29T02:46:27Z",
        "detection-pipeline.run": RUN,
        "detection-pipeline.eval-map": "0.7235",
        "detection-pipeline.model-sha256": bento.model.onnx_sha256,
    }
    assert f'DETECTOR_RUN="{RUN}"' in (written.folder / "Dockerfile").read_text()
    unknown = write_context(old, tmp_path / "unknown").folder
    assert {"detection-pipeline.run", "org.opencontainers.image.revision"}.isdisjoint(labels(unknown))
    assert "DETECTOR_RUN" not in (unknown / "Dockerfile").read_text()


def test_compose_takes_its_file(each: BuildContext) -> None:
    content = yaml.safe_load((each.folder / "compose.yaml").read_text())
    schemas = files("check_jsonschema") / "builtin_schemas" / "vendor"
    jsonschema.validate(content, json.loads((schemas / "compose-spec.json").read_text(encoding="utf-8")))
    [service] = content["services"].values()
    assert service["image"] == each.tag
    assert service["read_only"]
    assert service["ports"] == ["127.0.0.1:3000:3000"], "this machine alone, as the service has no key by default"
    assert service["environment"]["DETECTOR_API_KEY"] is None, "taken from the environment"


def test_kubernetes_takes_its_file(each: BuildContext) -> None:
    deployment, service = yaml.safe_load_all((each.folder / "kubernetes.yaml").read_text())
    for document in (deployment, service):
        kubernetes_validate.validate(document, "1.31", strict=True)
    template, chosen = deployment["spec"]["template"], deployment["spec"]["selector"]["matchLabels"]
    assert chosen.items() <= template["metadata"]["labels"].items()
    assert service["spec"]["selector"] == chosen
    [container] = template["spec"]["containers"]
    assert container["image"] == each.tag
    assert container["securityContext"] == HARDENED
    assert template["spec"]["securityContext"]["runAsNonRoot"]
    assert template["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    probes = {name: value["httpGet"]["path"] for name, value in container.items() if name.endswith("Probe")}
    assert probes == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    assert {*container["resources"]} == {"requests", "limits"}
    [key] = [entry for entry in container["env"] if entry["name"] == "DETECTOR_API_KEY"]
    assert "value" not in key
    assert key["valueFrom"]["secretKeyRef"]["optional"]


def test_a_service_for_gpus_asks_for_one(for_gpus: PackedBento, bento: PackedBento, tmp_path: Path) -> None:
    def texts(bento: PackedBento, name: str) -> tuple[Any, Any, str]:
        folder = write_context(bento, tmp_path / name).folder
        [service] = yaml.safe_load((folder / "compose.yaml").read_text())["services"].values()
        deployment, _ = yaml.safe_load_all((folder / "kubernetes.yaml").read_text())
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        return service["deploy"]["resources"], container["resources"]["limits"], (folder / "Dockerfile").read_text()

    compose, kubernetes, dockerfile = texts(for_gpus, "gpu")
    assert compose["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert kubernetes["nvidia.com/gpu"] == 1
    assert "LD_LIBRARY_PATH" in dockerfile
    compose, kubernetes, dockerfile = texts(bento, "cpu")
    assert "reservations" not in compose
    assert "nvidia.com/gpu" not in kubernetes
    assert "nvidia" not in dockerfile.lower()


def test_a_library_for_c_is_removed_where_there_is_one(
    bento: PackedBento, for_gpus: PackedBento, for_openvino: PackedBento, tmp_path: Path
) -> None:
    removed = {
        name: "libonnxruntime" in (write_context(each, tmp_path / name).folder / "Dockerfile").read_text()
        for name, each in {"cpu": bento, "gpu": for_gpus, "openvino": for_openvino}.items()
    }
    assert removed == {"cpu": True, "gpu": False, "openvino": False}


def test_an_earlier_context_is_replaced_and_other_files_are_not(bento: PackedBento, tmp_path: Path) -> None:
    folder = write_context(bento, tmp_path / "container").folder
    (folder / "bento" / "left.txt").write_text("from an earlier version")
    write_context(bento, folder)
    assert not (folder / "bento" / "left.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "mine" / "sbom.cdx.json").write_text("of another product")
    for place in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(UsageError, match="would replace other files"):
            write_context(bento, place)
    assert contents_of(tmp_path / "mine") == {"thesis.txt": b"years of work", "sbom.cdx.json": b"of another product"}
    assert {path.name for path in tmp_path.iterdir()} == {"container", "mine"}


def test_a_context_inside_its_bento_is_refused(bento: PackedBento) -> None:
    with pytest.raises(UsageError, match="would lie in the Bento"):
        write_context(bento, bento.folder / "container")
    assert not (bento.folder / "container").exists()


@pytest.mark.parametrize("tag", ["Detector:1", "detector:", "two words", "--tag", "detector:a/b", 'detector:"x"'])
def test_what_cannot_name_an_image_is_refused(bento: PackedBento, tmp_path: Path, tag: str) -> None:
    with pytest.raises(UsageError, match="no name of an image"):
        write_context(bento, tmp_path / "container", tag=tag)
    assert not list(tmp_path.iterdir())
