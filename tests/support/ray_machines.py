"""A Ray cluster of four machines: the user's; the head, which has the S3 server, too; a, with much memory; b."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from machines import Machine, checkout, machines, short_folder
from seaweed import KEY, SECRET, seaweed

TOKEN = "5f0e8d7c6b5a49382716f0e8d7c6b5a4"
# the head gives up a machine that does not answer after some seconds, instead of almost a minute
NOTICING = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
BUCKET = """\
import s3fs, time
for _ in range(100):
    try:
        s3fs.S3FileSystem().mkdir("shared")
        break
    except OSError:
        time.sleep(0.2)"""


@dataclass(frozen=True)
class RayMachines:
    """The machines, and the environment that a user of the cluster has."""

    machines: dict[str, Machine]
    env: dict[str, str]

    @property
    def without_token(self) -> dict[str, str]:
        """The environment of somebody who does not know the token."""
        return {name: value for name, value in self.env.items() if name != "RAY_AUTH_TOKEN"}

    def start(self, name: str) -> None:
        """Start Ray on a machine; `a` has much memory, `b` says that it has a GPU."""
        self.await_start(name, self.begin(name))

    def begin(self, name: str) -> subprocess.Popen[str]:
        """Begin to start Ray on a machine."""
        machine, head = self.machines[name], self.machines["head"].address
        role = {
            "head": ["--head", "--port=6379", f"--dashboard-host={head}", "--num-cpus=0"],
            "a": [f"--address={head}:6379", "--num-cpus=2", f"--memory={64 * 10**9}"],
            "b": [f"--address={head}:6379", "--num-cpus=4", "--num-gpus=1", f"--memory={8 * 10**9}"],
        }[name]
        small = ["--object-store-memory=80000000", f"--node-ip-address={machine.address}", "--disable-usage-stats"]
        return machine.spawn("ray", "start", *role, *small, env=self.env)

    @staticmethod
    def await_start(name: str, program: subprocess.Popen[str]) -> None:
        """Wait until Ray runs."""
        out, _ = program.communicate(timeout=120)
        assert program.returncode == 0, f"Ray does not start on {name}:\n{out}"


@contextmanager
def ray_machines() -> Iterator[RayMachines]:
    """The cluster during the block."""
    folder = short_folder()
    hidden = [Path("/tmp"), *checkout()]
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        names = ("user", "head", "a", "b")
        found = stack.enter_context(machines(names, dict.fromkeys(names[1:], hidden)))
        head = found["head"]
        endpoint = stack.enter_context(seaweed(folder, head.address, tuple(head.inside())))
        env = {
            "PATH": programs,
            "HOME": "/tmp",
            "LANG": "C.UTF-8",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            **NOTICING,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
        }
        cluster = RayMachines(found, env)
        cluster.start("head")
        begun = {name: cluster.begin(name) for name in ("a", "b")}
        found["user"].run(sys.executable, "-c", BUCKET, env=env)
        for name, program in begun.items():
            cluster.await_start(name, program)
        address = f"http://{head.address}:8265"
        yield replace(cluster, env={**env, "RAY_API_SERVER_ADDRESS": address, "HOME": str(folder)})
