"""The software bill of materials of a service in CycloneDX 1.6: its packages and its model.

Reference: https://cyclonedx.org/docs/1.6/json/. Hashes of packages are not in it: which wheel of a version is installed
depends on the platform. Nor are the packages of the base image, which is chosen when the image is built.
"""

from __future__ import annotations

import uuid
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from pipeline.containers.licences import NOT_STATED, licence_of
from pipeline.containers.packed_bento import PackedBento


def bill_of_materials(bento: PackedBento) -> dict[str, Any]:
    """The bill as JSON values, the same for the same Bento and the same installed packages."""
    components = [_model(bento), *(_package(*each) for each in bento.requirements)]
    created = bento.facts.get("created")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, bento.tag)}",
        "version": 1,
        "metadata": {
            **({"timestamp": created} if created else {}),
            "component": {
                "type": "application",
                "bom-ref": bento.tag,
                "name": bento.name,
                "version": bento.version,
                "description": bento.title,
            },
        },
        "components": components,
        "dependencies": [{"ref": bento.tag, "dependsOn": [each["bom-ref"] for each in components]}],
    }


def _model(bento: PackedBento) -> dict[str, Any]:
    model, name = bento.model, bento.model.name
    data = [
        {"type": "dataset", "name": entity, "contents": {"properties": [{"name": "digest", "value": digest}]}}
        for entity, digest in model.origin.get("data", {}).items()
    ]
    measured = bento.facts.get("eval_mAP")
    card: dict[str, Any] = {
        "modelParameters": {
            "task": "object detection",
            "architectureFamily": "YOLOX",
            "modelArchitecture": name,
            "inputs": [{"format": "image"}],
            "outputs": [{"format": "boxes, scores and classes"}],
            **({"datasets": data} if data else {}),
        }
    }
    if measured:
        card["quantitativeAnalysis"] = {"performanceMetrics": [{"type": "eval_mAP", "value": measured}]}
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{model.onnx_sha256}",
        "name": name,
        "version": model.onnx_sha256[:16],
        "description": f"detects {', '.join(model.classes)}",
        "hashes": [{"alg": "SHA-256", "content": model.onnx_sha256}],
        **_licences(model.origin.get("licence", "")),
        "modelCard": card,
    }


def _package(name: str, pinned: str) -> dict[str, Any]:
    url = f"pkg:pypi/{name}@{pinned}"
    try:  # another version may be under another licence
        licence = licence_of(name) if version(name) == pinned else ""
    except PackageNotFoundError:
        licence = ""
    return {"type": "library", "bom-ref": url, "name": name, "version": pinned, "purl": url, **_licences(licence)}


def _licences(stated: str) -> dict[str, Any]:
    if stated in ("", NOT_STATED):
        return {}
    try:
        return {"licenses": [{"expression": str(canonicalize_license_expression(stated))}]}
    except InvalidLicenseExpression:
        return {"licenses": [{"license": {"name": stated}}]}
