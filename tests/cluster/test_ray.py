"""The steps on a Ray cluster of four machines, which lose their power, their network, or the command that follows."""

from __future__ import annotations

import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from machines import wait_for
from ray_machines import RayMachines

pytestmark = pytest.mark.slow
Checkout = Undisturbed = Any  # of conftest
TWO_PROCESSES = ("--set", "model_train.devices=2")

# `a` has the memory; only `b` says that it has a GPU, which is none: it tells where a step goes
THERE = """\
store: s3://shared/five
engine: ray
machines:
  data_load: {memory_gb: 32}
  data_prep: {memory_gb: 32}
  model_train: {gpus: 1}
  model_pack: {gpus: 1}
  model_eval: {gpus: 1}
"""
REQUEST = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1])"


def found(manifest: dict[str, Any], step: str) -> dict[str, str]:
    """Digests of what a step made, without the reports: that of the data names the config, the other one has times."""
    record = manifest["steps"][step]
    outputs = {entity: each["digest"] for entity, each in record["outputs"].items() if entity != "data_report"}
    return record["evidence"] or outputs


def host(manifest: dict[str, Any], step: str) -> str:
    """The machine of a step, by the record."""
    name: str = manifest["steps"][step]["process"]["host"].partition(" ")[0]
    return name


def test_only_the_user_sees_the_checkout_and_only_with_a_token_the_cluster(counter: Checkout) -> None:
    (counter.root / "marker").touch()
    machines = counter.cluster.machines
    look = ["test", "-e", str(counter.root / "marker")]
    seen = {name: machines[name].spawn(*look, env=counter.cluster.env).wait() == 0 for name in machines}
    assert seen == {"user": True, "head": False, "a": False, "b": False}
    address = f"{counter.cluster.env['RAY_API_SERVER_ADDRESS']}/api/version"
    asked = machines["user"].spawn(sys.executable, "-c", REQUEST, address, env=counter.cluster.without_token)
    assert "HTTP Error 401" in counter.end(asked, 1)
    out = counter.end(counter.begin("step.dev.py", RAY_AUTH_TOKEN=""), 2)
    assert "the cluster asks for a token" in out
    assert "export RAY_AUTH_TOKEN=" in out
    assert "refuses the token" in counter.end(counter.begin("step.dev.py", RAY_AUTH_TOKEN="0" * 32), 2)
    assert "RAY_API_SERVER_ADDRESS=http://HEAD:8265" in counter.end(
        counter.begin("step.dev.py", RAY_API_SERVER_ADDRESS=""), 2
    )
    assert "no dev run" in counter.run("-m", "pipeline", "show", code=1)


def test_what_the_cluster_cannot_run_is_refused_before_anything_is_queued(counter: Checkout, tmp_path: Path) -> None:
    config = counter.root / "configs" / "large.yaml"
    config.write_text((counter.root / "configs" / "demo.yaml").read_text() + "machines: {count: {memory_gb: 500}}\n")
    out = counter.run("step.dev.py", "--config", "configs/large.yaml", code=2)
    assert "count asks for more than any machine of the cluster has: 1 CPUs, 500 GB" in out
    assert "2 CPUs, 64 GB; 4 CPUs, 8 GB, 1 GPUs" in out
    other = tmp_path / "other"
    (other / "requests-0.0.1.dist-info").mkdir(parents=True)
    (other / "requests-0.0.1.dist-info" / "METADATA").write_text("Name: requests\nVersion: 0.0.1\n")
    out = counter.end(counter.begin("step.dev.py", PYTHONPATH=f"{other}:{counter.package}"), 1)
    assert re.search(r"(?s)another environment: requests [\d.]+ instead of 0\.0\.1.*requirements\.ray\.lock", out), out
    assert "no dev run" in counter.run("-m", "pipeline", "show", code=1)


def test_a_killed_command_leaves_its_job_and_the_next_one_follows_it(counter: Checkout) -> None:
    arguments = ["step.dev.py", "--set", "count.seconds=20"]
    program = counter.begin(*arguments)
    wait_for(lambda: counter.place("count"), 60, "the step starts")
    counter.process(program).kill()
    program.wait()
    assert counter.place("count")
    out = counter.run(*arguments)
    assert "continued" in out
    assert "it begins at 0 with the note not committed" in counter.run("-m", "pipeline", "log", "count")
    record = counter.manifest()["steps"]["count"]
    assert (record["status"], record["earlier_attempts"], record["job"][-6:]) == ("succeeded", [], "-001-1")
    assert record["seconds"] > 20
    run = counter.manifest()["run"]
    logged = (counter.root / ".cache" / "logs" / run / "count" / "1" / "seconds.txt").read_text()
    assert logged.split() == [str(second) for second in range(20)]
    assert counter.at_work() == {}


def test_an_interrupt_reaches_the_kernel_on_its_machine(counter: Checkout) -> None:
    program = counter.begin("step.dev.py", "--set", "count.seconds=300")
    wait_for(lambda: counter.place("count"), 60, "the step starts")
    wait_for(lambda: "running" in counter.run("-m", "pipeline", "log", "count"), 30, "the kernel is at work")
    began = time.monotonic()
    counter.process(program).send_signal(signal.SIGINT)
    wait_for(lambda: not counter.at_work(), 30, "the kernel ends")
    took = time.monotonic() - began
    counter.end(program, 130)
    assert took < 10, took
    assert "tidied up" in counter.run("-m", "pipeline", "log", "count")
    assert counter.manifest()["steps"]["count"]["status"] == "interrupted"


def test_a_step_whose_network_is_cut_ends_there_and_goes_on_elsewhere(counter: Checkout, cluster: RayMachines) -> None:
    before = resumable(counter, "counter")
    program = counter.begin("step.dev.py", "--set", "count.seconds=12")
    lost = wait_for(lambda: counter.place("count"), 60, "the step starts")
    wait_for(lambda: resumable(counter, "counter") - before, 30, "its count is kept")
    machine = cluster.machines[lost]
    machine.cut()
    began = time.monotonic()
    try:
        wait_for(lambda: lost not in counter.at_work(), 60, "the step ends on the machine that is cut off")
        took = time.monotonic() - began
        counter.end(program)
    finally:
        machine.kill()
        machine.start()
        cluster.start(lost)
    manifest = counter.manifest()
    record = manifest["steps"]["count"]
    assert (record["job"][-2:], host(manifest, "count") != lost, record["metrics"]["begun"] > 0) == ("-2", True, True)
    assert counter.at_work() == {}
    print(f"it ended {took:.0f} s after the cut")


def test_the_five_notebooks_make_what_they_make_here(checkout: Checkout, undisturbed: Undisturbed) -> None:
    config = (checkout.root / "configs" / "here.yaml").read_text().replace("name: here", "name: there")
    (checkout.root / "configs" / "there.yaml").write_text(config + THERE)
    out = checkout.run("step.dev.py", "--config", "configs/there.yaml")
    here, there = undisturbed.result().on_one, checkout.manifest("configs/there.yaml")
    assert {step: host(there, step) for step in there["steps"]} == {
        "data_load": "a",
        "data_prep": "a",
        "model_train": "b",
        "model_pack": "b",
        "model_eval": "b",
    }
    for step in here["steps"]:
        assert found(there, step) == found(here, step), step
    record = there["steps"]["model_train"]
    assert (record["engine"], record["job"]) == ("ray", f"{there['run']}-model_train-001-1")
    assert record["environment"] == here["steps"]["model_train"]["environment"]
    assert record["process"] != here["steps"]["model_train"]["process"]
    assert "model_train runs on b: job" in out
    assert list((checkout.root / ".cache" / "logs" / there["run"] / "model_train" / "1").rglob("*tfevents*"))
    assert "epoch" in log_of(checkout, "configs/there.yaml")
    assert (checkout.root / "out" / "dev" / "there" / "index.html").is_file()


def test_a_training_on_two_machines_that_both_lose_their_power_has_the_bytes_of_two_processes_on_one(
    checkout: Checkout, undisturbed: Undisturbed
) -> None:
    """The other machine is replaced; then the first is lost, which runs the notebook, and a new job goes on."""
    config = "configs/there.yaml"
    text = (checkout.root / config).read_text()
    (checkout.root / config).write_text(text.replace("model_train: {gpus: 1}", "model_train: {nodes: 2}"))
    program = checkout.begin("step.dev.py", "model_train", "--config", config, *TWO_PROCESSES, "--force")
    first = wait_for(lambda: checkout.place("model_train", config), 60, "the training starts")
    wait_for(lambda: resumable(checkout, "five"), 300, "an epoch is kept")
    other = {"a": "b", "b": "a"}[first]
    restart(checkout.cluster, other)
    told = f"{other} is gone; the training goes on with another machine"
    wait_for(lambda: log_of(checkout, config).partition(told)[2].count("training on a, b"), 300, "it goes on")
    restart(checkout.cluster, first)
    out = checkout.end(program)
    manifest = checkout.manifest(config)
    assert found(manifest, "model_train") == found(undisturbed.result().on_two, "model_train")
    assert manifest["steps"]["model_train"]["job"].endswith("-2")
    assert "is gone; the step goes on elsewhere" in out
    log = log_of(checkout, config)
    assert "training on a, b" in log
    assert "continuing after epoch" in log
    assert checkout.at_work() == {}
    assert not resumable(checkout, "five")


def restart(cluster: RayMachines, name: str) -> None:
    """Take a machine's power away, and give it back."""
    cluster.machines[name].kill()
    cluster.machines[name].start()
    cluster.start(name)


def log_of(checkout: Checkout, config: str) -> str:
    """What `log` prints of the training."""
    return str(checkout.run("-m", "pipeline", "log", "model_train", "--config", config))


def resumable(checkout: Checkout, folder: str) -> set[str]:
    """The work that the store has something of to go on from."""
    look = f"import s3fs; print(s3fs.S3FileSystem().find('shared/{folder}'))"
    out = checkout.cluster.machines["user"].run(sys.executable, "-c", look, env=checkout.cluster.env)
    return set(re.findall(r"/resume/([\w.]+)/index.json", out))
