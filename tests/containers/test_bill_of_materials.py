"""The bill of materials, checked against CycloneDX' own schema."""

from __future__ import annotations

import json
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft7Validator, FormatChecker
from referencing import Registry, Resource

from pipeline.containers.bill_of_materials import bill_of_materials
from pipeline.containers.packed_bento import PackedBento


@pytest.mark.parametrize("kind", ["bento", "for_gpus", "old"])
def test_it_is_valid(kind: str, request: pytest.FixtureRequest) -> None:
    folder = files("cyclonedx") / "schema" / "_res"
    schemas = {
        name: json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text(encoding="utf-8"))
        for name in ("bom-1.6", "spdx", "jsf-0.82")
    }
    registry: Any = Registry().with_resources(
        (schema["$id"], Resource.from_contents(schema)) for schema in schemas.values()
    )
    validator = Draft7Validator(schemas["bom-1.6"], registry=registry, format_checker=FormatChecker())
    bill = bill_of_materials(request.getfixturevalue(kind))
    assert [error.message for error in validator.iter_errors(bill)] == []
    assert [error.message for error in validator.iter_errors({**bill, "specVersion": 1.6})]


def test_it_lists_every_package_and_the_model(bento: PackedBento) -> None:
    bill = bill_of_materials(bento)
    model, *packages = bill["components"]
    assert [(each["name"], each["version"]) for each in packages] == [*bento.requirements]
    numpy = next(each for each in packages if each["name"] == "numpy")
    assert numpy["purl"] == f"pkg:pypi/numpy@{version('numpy')}"
    assert "BSD-3-Clause" in numpy["licenses"][0]["expression"]
    assert not [each["name"] for each in packages if "licenses" not in each]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"] == [{"alg": "SHA-256", "content": bento.model.onnx_sha256}]
    assert model["licenses"] == [{"expression": "Apache-2.0"}]
    [data] = model["modelCard"]["modelParameters"]["datasets"]
    assert data["contents"]["properties"] == [{"name": "digest", "value": "cd" * 32}]
    assert bill["metadata"]["timestamp"] == "2026-11-29T02:46:27Z"
    references = [each["bom-ref"] for each in bill["components"]]
    assert bill["dependencies"] == [{"ref": bento.tag, "dependsOn": references}]
    assert len({*references}) == len(references)


def test_the_licence_of_another_version_is_not_claimed(bento: PackedBento, for_gpus: PackedBento) -> None:
    pins = (("numpy", "1.0"), ("onnxruntime-gpu", "1.31.1"))
    _, *packages = bill_of_materials(PackedBento(**{**vars(bento), "requirements": pins}))["components"]
    assert [each.get("licenses") for each in packages] == [None, None]
