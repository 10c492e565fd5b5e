"""How fast the packed service is, beside a plain FastAPI service and beside a bare loop.

    python benchmarks/bench_serving.py [--model nano-256 ...] [--seconds 4] [--turns 3] [--json]

The packed service and `plain_service.py` serve the same ONNX file, each alone on this machine, in turns. Clients with
kept connections send JPEG files of 640 x 480 pixels over loopback, from this process. The bare loop decodes, prepares
and runs the same files on as many threads as there are CPUs, without any HTTP.

The images are the photographs of `CV_REAL_DATA` of that size, and nano's weights are its trained ones; without it,
images are noise and weights random. Size s always has random weights: the speed of a run does not depend on them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import psutil
import requests
import torch
import uvloop
from report import work_in

from pipeline.client.service_process import serve
from pipeline.detection.export import export_onnx
from pipeline.detection.families.yolox import FAMILY as YOLOX
from pipeline.serving.decoding import decode
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.packing import pack_service
from pipeline.serving.predictor import Predictor
from pipeline.serving.preprocessing import letterbox
from pipeline.serving.settings import available_cpus

MODELS = {"nano-256": ("nano", 256), "nano-416": ("nano", 416), "s-640": ("s", 640)}
LOADS = ((1, 1), (4, 1), (16, 1), (1, 16), (4, 16))  # clients, images in a request
LEAST = {1: 1.2, 16: 1.3}  # times the plain service, by images in a request
LEAST_OF_BARE = 0.85
MOST_START = 3.0  # seconds from the command to ready
PLAIN = Path(__file__).with_name("plain_service.py")


@dataclass(frozen=True)
class Load:
    """What one load gave."""

    images_per_second: float
    p50: float  # milliseconds of a request
    p99: float


def main() -> int:
    """Measure and print; exit code 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", action="append", choices=MODELS, help="all by default")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    asked = parser.parse_args()
    with work_in(None, "bench_serving") as folder:
        files = photographs()
        models = []
        for name in asked.model or MODELS:
            models.append(measured(folder, name, files, asked))
            if not asked.json:
                show(models[-1])
    met = all(row["met"] for model in models for row in model["rows"] if "met" in row)
    if asked.json:
        sys.stdout.write(json.dumps({"models": models, "met": met, "load": os.getloadavg()[0]}, indent=2) + "\n")
    return 0 if met else 1


def photographs() -> list[bytes]:
    """JPEG files of 640 x 480 pixels."""
    archive = Path(os.environ.get("CV_REAL_DATA", "../shared/data"), "val2017.zip")
    if not archive.is_file():
        random = np.random.default_rng(0)
        noise = [cv2.resize(random.integers(0, 255, (48, 64, 3), np.uint8), (640, 480)) for _ in range(16)]
        return [bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]) for image in noise]
    with zipfile.ZipFile(archive) as opened:
        files = [opened.read(name) for name in sorted(opened.namelist()) if name.endswith(".jpg")]
    return [data for data in files if decode(data).shape == (480, 640, 3)][:32]


def packed(folder: Path, name: str, files: Sequence[bytes]) -> tuple[Path, ModelMetadata]:
    """Pack a model; its file lies beside the Bento."""
    variant, size = MODELS[name]
    metadata = ModelMetadata(variant, (size, size), tuple(f"class {i}" for i in range(80)))
    weights = Path(os.environ.get("CV_REAL_DATA", "../shared/data"), "yolox_nano_coco.pth")
    if variant == "nano" and weights.is_file():
        content = torch.load(weights, weights_only=True)
        content["meta"] = {"dataset_meta": {"classes": metadata.classes}}
    else:
        torch.manual_seed(0)
        content = {"meta": {"dataset_meta": {"classes": metadata.classes}},
                   "state_dict": YOLOX.build_model(metadata).state_dict()}  # fmt: skip
    torch.save(content, folder / "weights.pth")
    model = export_onnx(metadata, folder / "weights.pth", folder / f"{name}.onnx")
    metadata = replace(metadata, onnx_sha256=model.sha256)
    (folder / "test.jpg").write_bytes(files[0])
    return pack_service(model.path, metadata, folder / "test.jpg", folder / name).folder, metadata


def measured(folder: Path, name: str, files: Sequence[bytes], asked: argparse.Namespace) -> dict[str, Any]:
    """Measure one model."""
    bento, metadata = packed(folder, name, files)
    model = folder / f"{name}.onnx"
    starts, idle, loaded, bare = [], [], [], []
    loads: dict[str, dict[tuple[int, int], list[Load]]] = {"plain": {}, "ours": {}}
    for turn in range(asked.turns):
        for who in ("plain", "ours") if turn % 2 else ("ours", "plain"):
            started = time.perf_counter()
            with plain(model, metadata.image_size[0]) if who == "plain" else ours(bento) as (url, pid):
                if who == "ours":
                    starts.append(time.perf_counter() - started)
                    idle.append(memory(pid))
                for load in LOADS:
                    loads[who].setdefault(load, []).append(loaded_by(url, files, *load, asked.seconds))
                if who == "ours":
                    loaded.append(memory(pid))
        bare.append(bare_loop(model, metadata, files, asked.seconds))
    rows = []
    for clients, images in LOADS:
        both = {who: loads[who][clients, images] for who in loads}
        ratio = median(
            a.images_per_second / b.images_per_second for a, b in zip(both["ours"], both["plain"], strict=True)
        )
        row = {f"{who}_{figure}": median(getattr(one, figure) for one in both[who])
               for who in both for figure in ("images_per_second", "p50", "p99")}  # fmt: skip
        row |= {"clients": clients, "images": images, "ratio": ratio, "least": LEAST[images]}
        rows.append(row | {"met": ratio >= LEAST[images] and row["ours_p99"] <= row["plain_p99"]})
    saturated = max(row["ours_images_per_second"] for row in rows)
    return {
        "model": name,
        "rows": [
            *rows,
            {"what": "to the bare loop", "ratio": saturated / median(bare), "least": LEAST_OF_BARE,
             "met": saturated / median(bare) >= LEAST_OF_BARE},
            {"what": "start to ready, s", "value": median(starts), "most": MOST_START,
             "met": median(starts) <= MOST_START},
            {"what": "memory, idle, MB", "value": median(idle)},
            {"what": "memory, loaded, MB", "value": median(loaded)},
            {"what": "bare loop, images/s", "value": median(bare)},
        ],
    }  # fmt: skip


def show(model: dict[str, Any]) -> None:
    """Print the table of one model."""
    write = sys.stdout.write
    write(f"{model['model']}\n  clients  images    plain     ours   p99 plain   p99 ours   ratio\n")
    for row in model["rows"]:
        if "clients" in row:
            verdict = "met" if row["met"] else f"MISSED ({row['least']})"
            write(f"  {row['clients']:7} {row['images']:7} {row['plain_images_per_second']:8.1f} "
                  f"{row['ours_images_per_second']:8.1f} {row['plain_p99']:8.1f} ms {row['ours_p99']:7.1f} ms "
                  f"{row['ratio']:7.2f}  {verdict}\n")  # fmt: skip
        else:
            verdict = (
                "" if "met" not in row else "met" if row["met"] else f"MISSED ({row.get('least', row.get('most'))})"
            )
            write(f"  {row['what']:<50} {row.get('ratio', row.get('value')):8.2f}  {verdict}\n")
    write("\n")


@contextmanager
def ours(bento: Path) -> Iterator[tuple[str, int]]:
    """The packed service."""
    with serve(bento) as running:
        yield running.url, running.pid


@contextmanager
def plain(model: Path, size: int) -> Iterator[tuple[str, int]]:
    """The plain service."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"MODEL": str(model), "SIZE": str(size), "ORT_DISABLE_TELEMETRY": "1"}
    process = subprocess.Popen([sys.executable, str(PLAIN), str(port)], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            time.sleep(0.1)
            try:
                requests.get(url + "/docs", timeout=1)
                break
            except requests.ConnectionError:
                if process.poll() is not None:
                    raise
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def memory(pid: int) -> float:
    """Megabytes that a process and its children hold."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return max(each.memory_info().rss for each in processes) / 1e6


def bare_loop(model: Path, metadata: ModelMetadata, files: Sequence[bytes], seconds: float) -> float:
    """Images a second of decode, letterbox and run, on a thread for each CPU."""
    threads = available_cpus()
    predictor, counts = Predictor(model, metadata, threads=threads), [0] * threads
    cv2.setNumThreads(1)
    end = time.perf_counter() + seconds

    def work(place: int) -> None:
        for data in itertools.cycle(files):
            predictor.detect([letterbox(decode(data), metadata.image_size)], alone=False)
            counts[place] += 1
            if time.perf_counter() > end:
                return

    workers = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
    started = time.perf_counter()
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    return sum(counts) / (time.perf_counter() - started)


class Connection(asyncio.Protocol):
    """A kept connection that sends prepared requests, and reads the length of answers, nothing else."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Collect an answer."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._buffer) >= end + 4 + length:
            answer, self._buffer = self._buffer, b""
            if answer.startswith(b"HTTP/1.1 200"):
                self._answered.set_result(None)
            else:
                self._answered.set_exception(RuntimeError(answer[:300].decode()))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail a request that waits."""
        if not self._answered.done():
            self._answered.set_exception(error or ConnectionResetError("the server closed the connection"))

    async def send(self, request: bytes) -> None:
        """Send a request, and wait for its answer."""
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._answered


def request_of(files: Sequence[bytes]) -> bytes:
    """A request with image files."""
    head = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = b"".join(head + data + b"\r\n" for data in files) + b"--x--\r\n"
    length = str(len(body)).encode()
    start = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: "
    return start + length + b"\r\n\r\n" + body


def loaded_by(url: str, files: Sequence[bytes], clients: int, images: int, seconds: float) -> Load:
    """Load a service for so many seconds, after a second of warming up."""
    port = int(url.rpartition(":")[2])
    rotated = [[files[(start + i) % len(files)] for i in range(images)] for start in range(len(files))]
    requests_ = itertools.cycle(map(request_of, rotated))
    times: list[float] = []
    last = 0.0

    async def client(warm: float, end: float) -> None:
        nonlocal last
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
        answers = 0
        while (started := time.perf_counter()) < end or not answers:
            await connection.send(next(requests_))
            if started >= warm:
                last = time.perf_counter()
                times.append(last - started)
                answers += 1

    async def load() -> float:
        warm = time.perf_counter() + 1
        await asyncio.gather(*[client(warm, warm + seconds) for _ in range(clients)])
        return last - warm

    elapsed = uvloop.run(load())
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return Load(len(times) * images / elapsed, float(p50), float(p99))


if __name__ == "__main__":
    raise SystemExit(main())
