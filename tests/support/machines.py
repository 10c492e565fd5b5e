"""Machines made of namespaces: each has its own network, files, processes and host name, and can lose its power.

Linux, root, `unshare`, `nsenter` and `ip` are needed; see `lacking`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

NETWORK = "10.77.0"
# adopts and reaps what its processes leave, as a machine's first process does
INIT = "trap : CHLD; while :; do sleep 3600 & wait $!; done"
ROOT = Path(__file__).parents[2]


def lacking() -> str:
    """Why there can be no such machines here, or an empty text."""
    if sys.platform != "linux" or os.geteuid():
        return "machines made of namespaces need Linux and root"
    if missing := [name for name in ("unshare", "nsenter", "ip", "mount") if not shutil.which(name)]:
        return f"machines made of namespaces need {', '.join(missing)}"
    probe = "mount -t tmpfs none /mnt && ip link add one type veth peer name other && ip link add switch type bridge"
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--uts", "--ipc", "sh", "-c", probe]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"namespaces are not allowed here: {done.stderr.strip()}" if done.returncode else ""


class Machine:
    """A machine at the address `10.77.0.NUMBER`, which sees this one's disk except for what is hidden from it."""

    def __init__(self, name: str, number: int, switch: Machine | None, hidden: Sequence[Path] = ()) -> None:
        self.name, self.address = name, f"{NETWORK}.{number}"
        self._switch, self._hidden = switch, hidden
        self.start()

    def start(self) -> None:
        """Switch it on."""
        hide = [f"mount -t tmpfs tmpfs '{path}'" for path in self._hidden]
        boot = ["set -e", f"hostname {self.name}", "mount -t tmpfs tmpfs /dev/shm", *hide, "echo up", INIT]
        spaces = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child"]
        self._process = subprocess.Popen(
            ["unshare", *spaces, "bash", "-c", "\n".join(boot)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_the_tests,
        )
        said = self._process.stdout.readline() if self._process.stdout else b""
        assert said == b"up\n", f"{self.name} does not start"
        [init] = psutil.Process(self._process.pid).children()
        self._init = init.pid
        self._ip("link", "set", "lo", "up")
        if self._switch:
            link = ("link", "add", f"to-{self.name}", "type", "veth", "peer", "name", "eth0", "netns", str(self._init))
            self._switch._ip(*link)
            self._switch._ip("link", "set", f"to-{self.name}", "master", "switch", "up")
            self._ip("addr", "add", f"{self.address}/24", "dev", "eth0")
            self._ip("link", "set", "eth0", "up")
        else:
            self._ip("link", "add", "switch", "type", "bridge")
            self._ip("link", "set", "switch", "up")

    def kill(self) -> None:
        """Take its power away: every process of it is gone at once."""
        os.kill(self._init, signal.SIGKILL)
        self._process.wait()
        if self._switch:  # Linux takes its time to remove the link with the network of the machine
            self._switch._ip("link", "delete", f"to-{self.name}", check=False)

    def cut(self) -> None:
        """Pull its network cable."""
        self._ip("link", "set", "eth0", "down")

    def inside(self, *command: str) -> list[str]:
        """A command as it is run on this machine."""
        return ["nsenter", "--target", str(self._init), "--net", "--mount", "--pid", "--uts", "--ipc", *command]

    def spawn(self, *command: str, env: Mapping[str, str], cwd: Path | None = None) -> subprocess.Popen[str]:
        """Start a program on this machine; its output is read as one text."""
        place = ["env", f"--chdir={cwd or '/'}"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(self.inside(*place, *command), env={**env}, start_new_session=True, **pipes)

    def run(self, *command: str, env: Mapping[str, str], cwd: Path | None = None, timeout: float = 120) -> str:
        """Run a program on this machine to its good end; what it printed."""
        program = self.spawn(*command, env=env, cwd=cwd)
        out, _ = program.communicate(timeout=timeout)
        assert program.returncode == 0, f"{' '.join(command)} on {self.name} ends with {program.returncode}:\n{out}"
        return out

    def processes(self) -> Iterator[psutil.Process]:
        """Its processes, except for those that have ended and wait for being reaped."""
        space = Path(f"/proc/{self._init}/ns/pid").readlink()
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                own = Path(f"/proc/{process.pid}/ns/pid").readlink()
                if own == space and process.status() != psutil.STATUS_ZOMBIE:
                    yield process

    def _ip(self, *arguments: str, check: bool = True) -> None:
        command = ["nsenter", "--target", str(self._init), "--net", "ip", *arguments]
        subprocess.run(command, check=check, stderr=None if check else subprocess.DEVNULL)


def _end_with_the_tests() -> None:
    """Have this process killed when the one that started it ends, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@contextmanager
def machines(names: Sequence[str], hidden: Mapping[str, Sequence[Path]]) -> Iterator[dict[str, Machine]]:
    """Machines at one switch during the block, in which `hidden` tells the folders that each does not see."""
    switch = Machine("switch", 1, None)
    found: dict[str, Machine] = {}
    try:
        for number, name in enumerate(names, 2):
            found[name] = Machine(name, number, switch, hidden.get(name, ()))
        yield found
    finally:
        for machine in (*found.values(), switch):
            with suppress(ProcessLookupError):
                machine.kill()


def checkout() -> list[Path]:
    """The folders to hide so that a machine does not see this project, except for a virtual environment in it."""
    if not Path(sys.prefix).is_relative_to(ROOT):
        return [ROOT]
    return [path for path in ROOT.iterdir() if path.is_dir() and not Path(sys.prefix).is_relative_to(path)]


def wait_for(reached: Any, seconds: float, what: str) -> Any:
    """The first true answer of `reached`, or fail."""
    end = time.monotonic() + seconds
    while not (answer := reached()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.5)
    return answer


def short_folder() -> Path:
    """A new folder that machines see whose /tmp is their own."""
    return Path(tempfile.mkdtemp(prefix="pipeline-machines.", dir="/var/tmp"))
