"""What the Dockerfile installs, without an engine: enough to serve with no network, and no more."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from pipeline.containers.build_context import BuildContext, write_context
from pipeline.containers.packed_bento import PackedBento

LARGEST = 400  # MiB that the installed packages take on disk

# Runs in the environment of the service, where there is no test library. `serve` is run as the image runs it.
CHECK = """
import fcntl, json, os, socket, struct, subprocess, sys, time, urllib.error, urllib.request
from pathlib import Path

serve, bento = sys.argv[1:-1], Path(sys.argv[-1])
if os.environ["IS_ALONE"] == "yes":  # a new network has only a loopback interface, which is down
    fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS with IFF_UP
try:
    socket.create_connection(("1.1.1.1", 443), timeout=2)
    is_offline = False
except OSError:
    is_offline = True
ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
server = subprocess.Popen(serve)
try:
    for _ in range(240):
        try:
            ready = ask("http://127.0.0.1:3999/readyz", timeout=5).status
            break
        except (urllib.error.URLError, OSError):
            assert server.poll() is None, "the server ended"
            time.sleep(0.25)
    [image] = bento.glob("src/test_image.*")
    head = f'--x\\r\\nContent-Disposition: form-data; name="images"; filename="{image.name}"\\r\\n\\r\\n'
    body = head.encode() + image.read_bytes() + b"\\r\\n--x--\\r\\n"
    threshold = json.loads((bento / "src/model.json").read_text())["score_threshold"]
    request = urllib.request.Request(
        f"http://127.0.0.1:3999/predict?score_threshold={threshold}", body,
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    [answer] = json.load(ask(request, timeout=60))
finally:
    server.terminate()
    code = server.wait(30)
print(json.dumps({"ready": ready, "answer": answer, "is_offline": is_offline, "code": code}))
"""
LIST = "import importlib.metadata as m, json; print(json.dumps([each.name for each in m.distributions()]))"


@pytest.fixture(scope="module")
def context(bento: PackedBento, tmp_path_factory: pytest.TempPathFactory) -> BuildContext:
    """The build context of the tiny model."""
    return write_context(bento, tmp_path_factory.mktemp("image") / "container")


@pytest.fixture(scope="module")
def service(context: BuildContext) -> Path:
    """The environment that the Dockerfile's RUN makes, in another folder."""
    dockerfile, folder = (context.folder / "Dockerfile").read_text(), context.folder.parent / "service"
    script = re.search(r"^RUN ((.*\\\n)*.*)", dockerfile, re.MULTILINE)[1].replace("\\\n", " ")
    for image, here in {
        "/opt/service": str(folder),
        " /requirements.txt": f" {context.folder}/requirements.txt",
        "python -m venv": f"{sys.executable} -m venv",
        "pip --python": f"{sys.executable} -m pip --quiet --disable-pip-version-check --python",
    }.items():
        assert image in script
        script = script.replace(image, here)
    subprocess.run(["sh", "-ec", script], check=True)
    return folder


@pytest.mark.slow
def test_only_what_is_pinned_is_installed_and_it_is_small(service: Path, bento: PackedBento) -> None:
    listed = subprocess.run([service / "bin/python", "-c", LIST], capture_output=True, text=True, check=True)
    names = {canonicalize_name(name) for name in json.loads(listed.stdout)}
    assert names == {name for name, _ in bento.requirements}
    assert names.isdisjoint({"torch", "mmdet", "mmengine", "mmcv-lite", "matplotlib", "pip", "setuptools"})
    on_disk = int(subprocess.run(["du", "-sm", service], capture_output=True, text=True, check=True).stdout.split()[0])
    print(f"the packages of a service take {on_disk} MiB")
    assert on_disk < LARGEST


@pytest.mark.slow
def test_it_serves_without_any_network(service: Path, context: BuildContext, tmp_path: Path) -> None:
    dockerfile, bento = (context.folder / "Dockerfile").read_text(), context.folder / "bento"
    entry: list[str] = json.loads(re.search(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)[1])
    places = {"bentoml": str(service / "bin/bentoml"), "/bento": str(bento), "0.0.0.0": "127.0.0.1", "3000": "3999"}
    serve = [places.get(word, word) for word in entry]
    alone = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    can = shutil.which("unshare") and subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0
    closed = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
        "IS_ALONE": "yes" if can else "no",
        **({} if can else closed),
    }
    ended = subprocess.run(
        [*(alone if can else []), service / "bin/python", "-c", CHECK, *serve, bento],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    recorded = json.loads((bento / "src/test_result.json").read_text())
    assert (found["ready"], found["code"]) == (200, 0)
    assert found["is_offline"] or not can
    assert recorded["detections"]
    assert found["answer"]["detections"] == recorded["detections"]
