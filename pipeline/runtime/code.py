"""The digest of the modules that a step uses, and the environment that it runs in."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
DISTRIBUTION = "detection-pipeline"
RUNTIME = "runtime"  # a notebook imports its `step`; the domain imports none of it
REQUIRED_NAME = re.compile(r"[\w.-]+")
NOT_INSTALLED = "not installed"
FACTS = ("platform", "machine", "processor", "device")  # of an environment, in which machines for one run may differ
CPUS = Path("/proc/cpuinfo")
VECTOR_FLAG = re.compile(r"(?:sse4|avx|fma|f16c|amx|neon|asimd|sve|bf16|i8mm)\w*|sme2?")


def code_digest(modules: tuple[str, ...]) -> str:
    """SHA-256 over the sources of the given modules of this package and all that they import from it.

    The packages that a module names in `CARRIES` count as imported. The runtime does not count: it decides when a step
    runs, not what the step computes.
    """
    digest = hashlib.sha256()
    for path, content in sorted(_closure(modules).items()):
        of_file = hashlib.sha256(content).hexdigest()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {of_file}\n".encode())
    return digest.hexdigest()


def imported_modules(tree: ast.Module, package: str = "") -> frozenset[str]:
    """Modules of this package that a source in `package` imports, and each imported `module.name`, maybe a module."""
    found: set[str] = set()
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in found if name == "pipeline" or name.startswith("pipeline."))


def _statements(block: ast.AST) -> Iterator[ast.AST]:
    """Every statement at any depth; expressions, most of a tree, contain none."""
    for name in ("body", "orelse", "handlers", "finalbody", "cases"):
        for node in getattr(block, name, None) or ():
            yield node
            yield from _statements(node)


def _closure(modules: tuple[str, ...]) -> dict[Path, bytes]:
    """The files that make up the modules and their imports, with their current content."""
    found: dict[Path, bytes] = {}
    waiting, seen = [*modules], {*modules}
    while waiting:
        for path in _files_of(waiting.pop()):
            if path not in found:
                found[path] = path.read_bytes()
                new = _imports(found[path], ".".join([PACKAGE.name, *path.relative_to(PACKAGE).parent.parts])) - seen
                waiting += new
                seen |= new
    for folder in {path.parent for path in found}:  # a file beside a module, such as a template, is part of it
        found |= {path: path.read_bytes() for path in folder.iterdir() if _is_resource(path)}
    return found


def _is_resource(path: Path) -> bool:
    return path.is_file() and path.suffix not in {".py", ".pyc"} and not path.name.startswith(".")


def _files_of(module: str) -> Iterator[Path]:
    """The module's own file and its packages' `__init__`; none for a name inside a module."""
    parts = module.split(".")[1:]
    if parts and parts[0] != RUNTIME:
        files = [PACKAGE.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
        files += PACKAGE.joinpath(*parts[:-1]).glob(f"{parts[-1]}.py")
        files += PACKAGE.joinpath(*parts[:-1]).glob(f"{parts[-1]}/__init__.py")
        yield from (path for path in files if path.is_file())


@cache
def _imports(source: bytes, package: str) -> frozenset[str]:
    """Modules that a source imports, or handles as files, such as to pack them: its `CARRIES = (...)` of packages.

    Cached by content, so an edit counts at once.
    """
    tree = ast.parse(source)
    carries = [
        f"{name}.*"
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CARRIES"
        for name in ast.literal_eval(node.value)
    ]
    return imported_modules(tree, package).union(carries)


@cache
def environment() -> dict[str, str]:
    """Python, platform, processor, device, and the versions of the required packages."""
    # importing torch to ask it for the device would take seconds
    reports = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    models = [line.partition(":")[2].strip() for path in reports for line in path.read_text().splitlines()[:1]]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor(),
        "device": ", ".join(models) or f"CPU, {os.cpu_count()} cores",
        **required_versions(DISTRIBUTION),
    }


def _processor() -> str:
    """The kind of CPU: its name, family and model, and the vector instructions by which libraries choose their code.

    Those that a virtual machine hides are not among them. Processors of one kind compute the same last digits.
    """
    facts: dict[str, str] = {}
    if CPUS.is_file():
        of_first = CPUS.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
        facts = {
            name.strip(): value.strip() for name, _, value in (line.partition(":") for line in of_first.splitlines())
        }
    numbers = ("cpu family", "model", "CPU implementer", "CPU part")
    named = facts.get("model name") or platform.processor() or platform.machine()
    named = ", ".join([named, *(f"{name} {facts[name]}" for name in numbers if name in facts)])
    words = (facts.get("flags") or facts.get("Features") or "").split()
    flags = sorted(word for word in words if VECTOR_FLAG.fullmatch(word))
    return f"{named}, {' '.join(flags)}" if flags else named


def environment_with(packages: Iterable[str]) -> dict[str, str]:
    """The environment, with these packages: where code only travels to, nothing says which ones it requires."""
    own, folders = environment(), _package_folders()
    return {**own, **{name: _version(folders, name) for name in packages if name not in own}}


def hardware(environment: Mapping[str, str]) -> str:
    """What computed in a recorded environment: its processor, and its GPUs if it had any.

    Empty where a version of the pipeline recorded it that did not tell the processor.
    """
    processor, device = environment.get("processor", ""), environment.get("device", "")
    return processor if not processor or device.startswith("CPU") else f"{processor}; {device}"


def required_versions(distribution: str) -> dict[str, str]:
    """Versions of the packages that a distribution requires, without extras; empty if it is not installed.

    `importlib.metadata` parses whole files as e-mails, which takes 40 ms more: a sixth of a run with nothing to do.
    """
    folders = _package_folders()
    required = _field(folders, distribution, "Requires-Dist")
    names = [found[0] for text in required if "extra ==" not in text and (found := REQUIRED_NAME.match(text))]
    return {name: _version(folders, name) for name in sorted(names)}


def _package_folders() -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for place in map(Path, sys.path):
        for folder in sorted(place.glob("*.dist-info")):
            folders.setdefault(_normalised(folder.name.partition("-")[0]), folder)  # the first on the path counts
    return folders


def _version(folders: dict[str, Path], name: str) -> str:
    return next(iter(_field(folders, name, "Version")), NOT_INSTALLED)


def _field(folders: dict[str, Path], distribution: str, field: str) -> list[str]:
    metadata = folders.get(_normalised(distribution), Path()) / "METADATA"
    if not metadata.is_file():
        return []
    head = metadata.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]  # the README follows
    return re.findall(rf"^{field}: *(.*?) *$", head, re.MULTILINE)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
