"""A toy project: three notebooks that pass a text on, run by the real command lines, papermill and kernels."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from browsers import chromium, pages_of_files
from git_checkout import commit_all, git
from playwright.sync_api import Browser, Page
from seaweed import KEY, SECRET, seaweed

from pipeline.cli import step_commands
from pipeline.cli.entry import run_command
from pipeline.commands import MODULES
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Store

pytest_plugins = ["coco_sets"]

ROOT = Path(__file__).parents[1]
Cell = tuple[str, str]  # tag, or "md" for markdown, or ""; source

PARAMETERS = {
    "first": """\
text: str = "hello"  # what to write
times: int = 1  # how often; at least 1
url: str = "sample://x?a=1&b=2#c"  # passed on as it is""",
    "second": """\
act: str = "go"  # what to do; one of go, fail, refuse, sleep, die, forget, nothing
note: str = ""  # changes no output
loud: bool = False  # in capital letters""",
    "third": """\
score: float = 0.5  # what it will be
minimum: float = 0.0  # the quality gate""",
}
OPEN = {
    "first": 'step = Step.open("first", reads=[], writes=["letters"])',
    "second": 'step = Step.open("second", reads=["letters"], writes=["words"])',
    "third": 'step = Step.open("third", reads=["letters", "words"], writes=["book", "page"])',
}
FIRST = """\
(step.outputs["letters"] / "text.txt").write_text(text * times)
(step.outputs["letters"] / "url").write_text(url)"""
READ = """\
text = (step.inputs["letters"] / "text.txt").read_text()
text = text.upper() if loud else text"""
FAIL = """\
if act == "fail":
    raise ValueError("no such luck")
if act == "refuse":
    raise DataError("the text is bad", where="text.txt", remedy="write a better one")
print("so far so good")"""
WAIT = """\
if act in ("sleep", "die"):
    (step.cache / "kernel.pid").write_text(str(os.getpid()))
    try:
        time.sleep(120 if act == "sleep" else 0.2)
    finally:
        (step.cache / "tidied").write_text("yes")
if act == "die":
    os.kill(os.getpid(), 9)"""
WRITE = """\
if act != "nothing":
    (step.outputs["words"] / "text.txt").write_text(text)"""
THIRD = """\
words = (step.inputs["words"] / "text.txt").read_text()
(step.outputs["book"] / "deep").mkdir()
(step.outputs["book"] / "deep" / "book.txt").write_text(words)
(step.outputs["page"] / "page.txt").write_text(words)"""
WORK = {"first": [FIRST], "second": [READ, FAIL, WAIT, WRITE], "third": [THIRD]}
COMMIT = {
    "first": 'step.commit(metrics={"length": len(text) * times})',
    "second": 'if act != "forget":\n    step.commit(metrics={"length": len(text), "odd": float("nan")})',
    "third": """\
limits = {f"score {score:g}, at least {minimum:g}": score >= minimum} if minimum else {}
step.commit(
    metrics={"score": score, "pages": 1, "more": 2}, limits=limits, judged="words", evidence=["page/page.txt"],
)""",
}
IMPORTS = """\
import os
import time
from pathlib import Path

from pipeline.errors import DataError
from pipeline.runtime.step import Step"""
CONFIG = """\
name: toy
parameters:
  first:
    text: hallo
prod:
  first:
    text: servus
deliver:
  book: "read it  {path}/deep/book.txt with {bin}"
  page: "page     {path}"
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit code, what it printed, what it logged."""

    code: int
    out: str
    log: str

    def fails(self, *says: str, code: int = 1) -> None:
        """It ended with an error that says all of this."""
        assert (self.code, [text for text in says if text not in self.log]) == (code, []), self.log


@dataclass(frozen=True)
class Toy:
    """A folder that looks like a checkout."""

    root: Path

    def notebook(self, name: str, cells: list[Cell], kernel: str = "python3") -> Path:
        """Write a notebook."""
        made = []
        for tag, source in cells:
            make = nbformat.v4.new_markdown_cell if tag == "md" else nbformat.v4.new_code_cell
            made.append(make(source, metadata={"tags": [tag]} if tag not in ("", "md") else {}))
        notebook = nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": {"name": kernel, "display_name": "x"}})
        path = self.root / "steps" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, path)
        return path

    def step(self, *arguments: str, mode: str = "dev") -> Outcome:
        """`python step.MODE.py ...` in this process."""
        return self._call(lambda: step_commands.main(mode, arguments, self.root))

    def look(self, *arguments: str) -> Outcome:
        """`python -m pipeline ...` in this process."""
        return self._call(lambda: run_command(arguments, self.root, modules=MODULES))

    def json(self, *arguments: str) -> Any:
        """What a command of `python -m pipeline` prints with `--json`."""
        return json.loads(self.look(*arguments, "--json").out)

    def manifest(self, *arguments: str) -> dict[str, Any]:
        """What `show --json` prints."""
        content: dict[str, Any] = self.json("show", *arguments)
        return content

    def states(self) -> dict[str, str]:
        """State of each step by `status`."""
        return {row["step"]: row["state"] for row in self.json("status")["steps"]}

    def statuses(self) -> dict[str, str]:
        """Status of each step's latest attempt in the newest run."""
        return {name: step["status"] for name, step in self.manifest()["steps"].items()}

    def runs(self) -> list[dict[str, Any]]:
        """What `runs --json` prints, oldest first."""
        rows: list[dict[str, Any]] = self.json("runs")
        return rows[::-1]

    @staticmethod
    def cells_of(name: str) -> list[Cell]:
        """The cells that one of the three notebooks has at first."""
        work = [cell for source in WORK[name] for cell in (("md", "Work on."), ("", source))]
        return [
            ("md", f"# The {name} step\n\nMore on it."),
            ("", IMPORTS),
            ("parameters", PARAMETERS[name]),
            ("interface", OPEN[name]),
            *work,
            ("md", "Publish."),
            ("", COMMIT[name]),
        ]

    def spawn(self, *arguments: str, mode: str = "dev", **environment: str) -> subprocess.Popen[str]:
        """`python step.MODE.py ...` as a process of its own, which Ctrl-C reaches whoever started the tests."""
        return subprocess.Popen(
            [sys.executable, f"step.{mode}.py", *arguments],
            cwd=self.root,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def kernel(self) -> int:
        """Process of the kernel, once it is at work."""
        self.wait_for((self.root / ".cache" / "kernel.pid").is_file)
        time.sleep(0.1)
        return int((self.root / ".cache" / "kernel.pid").read_text())

    def git(self, *arguments: str) -> str:
        """git in the project."""
        return git(self.root, *arguments)

    def commit(self) -> str:
        """Make it a git checkout with everything committed, and return the commit."""
        (self.root / ".gitignore").write_text(".store/\n.cache/\nout/\n__pycache__/\n")
        return commit_all(self.root)

    @staticmethod
    def wait_for(reached: Callable[[], bool], seconds: float = 30) -> None:
        """Until it is so, or fail."""
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end, "it did not come to that"
            time.sleep(0.05)

    @staticmethod
    def is_alive(process: int) -> bool:
        """Whether a process runs; a zombie does not."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
        return False

    def left_over(self) -> list[Path]:
        """Folders of attempts that were not removed."""
        return list((self.root / ".cache" / "work").glob("*"))

    def _call(self, action: Callable[[], int]) -> Outcome:
        out, handler, before = io.StringIO(), BufferingHandler(10**6), Path.cwd()
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.INFO)
        os.chdir(self.root)
        try:
            with contextlib.redirect_stdout(out):
                code = action()
        except SystemExit as stop:  # argparse
            code = int(str(stop.code))
        finally:
            os.chdir(before)
            logging.getLogger().removeHandler(handler)
        return Outcome(code, out.getvalue(), "\n".join(record.getMessage() for record in handler.buffer))


def make_toy(root: Path, names: tuple[str, ...] = ("first", "second", "third")) -> Toy:
    """A new project in an empty folder."""
    root.mkdir(exist_ok=True)
    toy = Toy(root)
    for name in names:
        toy.notebook(name, toy.cells_of(name))
    (root / "configs").mkdir()
    config = CONFIG if "third" in names else CONFIG.partition("deliver:")[0]
    (root / "configs" / "demo.yaml").write_text(config)
    for script in ("step.dev.py", "step.prod.py"):
        shutil.copy(ROOT / script, root / script)
    return toy


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """A new project: first, second, third."""
    return make_toy(tmp_path)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs cells in this process: a kernel takes a second, and a project of three steps three."""
    import exam

    from pipeline.runtime import execution

    monkeypatch.setattr(execution, "execute", exam.in_process)


@pytest.fixture(scope="session")
def new_toy() -> Callable[[Path], Toy]:
    """Makes a project in a folder that is not there yet."""
    return make_toy


@pytest.fixture(scope="session")
def _ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Toy, Outcome]:
    toy = make_toy(tmp_path_factory.mktemp("toy") / "a project, run")
    return toy, toy.step()


@pytest.fixture(scope="session")
def first_outcome(_ran: tuple[Toy, Outcome]) -> Outcome:
    """How the run in `ran` ended."""
    return _ran[1]


@pytest.fixture
def ran(_ran: tuple[Toy, Outcome], tmp_path: Path) -> Toy:
    """The same project after all three steps ran; a copy, for this test alone."""
    shutil.copytree(_ran[0].root, tmp_path / "copy")
    return Toy(tmp_path / "copy")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket of a real S3 server, which this process and those it starts find by their environment."""
    import s3fs

    with seaweed(tmp_path_factory.mktemp("seaweed")) as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        system = s3fs.S3FileSystem()
        for _ in range(100):  # it accepts connections before it can store anything
            try:
                system.mkdir("tests")
                system.pipe_file("tests/ready", b"yes")
                break
            except OSError:
                time.sleep(0.1)
        assert system.exists("tests/ready")
        yield "s3://tests"


@pytest.fixture(params=["local", "memory", "s3"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each kind of place a store may lie in."""
    return str(request.param)


@pytest.fixture
def store_url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The URL of an empty place of each kind."""
    name = secrets.token_hex(6)
    if backend == "local":
        return str(tmp_path / "the store")
    return f"{request.getfixturevalue('s3') if backend == 's3' else 'memory://tests'}/{name}"


@pytest.fixture
def runs(store_url: str) -> Runs:
    """The runs of an empty store of each kind."""
    return Runs(Store(store_url))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with COCO's photographs, annotations and weights that tests on real data read."""
    folder = Path(os.environ.get("CV_REAL_DATA", ROOT.parent / "shared" / "data")).resolve()
    if not (folder / "val2017.zip").is_file():
        pytest.skip(f"no real photographs: {folder} is absent; name their folder in CV_REAL_DATA")
    return folder


class _SignalStack(ctypes.Structure):
    """`stack_t` of sigaltstack(2) on Linux."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


@pytest.fixture(autouse=True)
def _signals_on_the_usual_stack() -> None:
    """Leave no small stack for signal handlers, such as faulthandler and ipykernel set up.

    Once OpenVINO has used the widest registers, a signal's frame does not fit, and the kernel ends the process.
    """
    if sys.platform == "linux":
        disabled = _SignalStack(None, 2, 0)  # SS_DISABLE
        ctypes.CDLL(None).sigaltstack(ctypes.byref(disabled), None)


# --- pages -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")  # Playwright's event loop runs as long, and code under other tests has loops of its own
def browser() -> Iterator[Browser]:
    """Chromium, as the system has it."""
    with chromium() as started:
        yield started


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`open_page(path, **options)`: a file in a context of its own, which must ask nobody and log nothing."""
    with pages_of_files(browser) as open_file:
        yield open_file
