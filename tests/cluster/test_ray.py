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
Checkout = Any  # of conftest

EPOCHS = 4
CONFIG = f"""\
name: NAME
parameters:
  data_load: {{source_url: "sample://shapes?images=24&size=64&seed=3"}}
  model_train: {{image_size: 64, epochs: {EPOCHS}}}
  model_eval: {{min_map50: 0.0, allow_no_detections: true}}
deliver: {{model_quality_report: "report  {{path}}/report.html"}}
"""
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


def test_the_five_notebooks_make_what_they_make_here(checkout: Checkout) -> None:
    for name, more in (("here", ""), ("there", THERE)):
        (checkout.root / "configs" / f"{name}.yaml").write_text(CONFIG.replace("NAME", name) + more)
    checkout.run("step.dev.py", "--config", "configs/here.yaml")
    out = checkout.run("step.dev.py", "--config", "configs/there.yaml")
    here, there = (checkout.manifest(f"configs/{name}.yaml") for name in ("here", "there"))
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
    assert "epoch" in checkout.run("-m", "pipeline", "log", "model_train", "--config", "configs/there.yaml")
    assert (checkout.root / "out" / "dev" / "there" / "index.html").is_file()


def test_a_training_whose_machine_loses_its_power_ends_where_an_undisturbed_one_does(checkout: Checkout) -> None:
    config = "configs/there.yaml"
    undisturbed = found(checkout.manifest(config), "model_train")
    text = (checkout.root / config).read_text()
    (checkout.root / config).write_text(text.replace("model_train: {gpus: 1}", "model_train: {cpus: 1}"))
    program = checkout.begin("step.dev.py", "model_train", "--config", config, "--force")
    try:
        assert program.stderr is None
        lost = wait_for(lambda: checkout.place("model_train", config), 60, "the training starts")
        wait_for(lambda: resumable(checkout, "five"), 60, "an epoch is kept")
        checkout.cluster.machines[lost].kill()
        out = checkout.end(program)
    finally:
        checkout.cluster.machines[lost].start()
        checkout.cluster.start(lost)
    manifest = checkout.manifest(config)
    assert found(manifest, "model_train") == undisturbed
    assert host(manifest, "model_train") == {"a": "b", "b": "a"}[lost]
    assert manifest["steps"]["model_train"]["job"].endswith("-2")
    assert "is gone; the step goes on elsewhere" in out
    assert "continuing after epoch" in checkout.run("-m", "pipeline", "log", "model_train", "--config", config)
    assert not resumable(checkout, "five")


TWO = ("--set", "model_train.devices=2")


@pytest.mark.parametrize("role", ["other", "first"])
def test_a_training_on_two_machines_of_which_one_loses_its_power_has_the_bytes_of_two_processes_on_one(
    role: str, checkout: Checkout
) -> None:
    """The other machine is replaced; where the first is lost, which runs the notebook, a new job goes on."""
    checkout.run("step.dev.py", "model_train", "--config", "configs/here.yaml", *TWO)  # once: then it is reused
    undisturbed = found(checkout.manifest("configs/here.yaml"), "model_train")
    config = "configs/there.yaml"
    text = (checkout.root / config).read_text()
    (checkout.root / config).write_text(re.sub(r"model_train: {\w+: \d}", "model_train: {nodes: 2}", text))
    program = checkout.begin("step.dev.py", "model_train", "--config", config, *TWO, "--force")
    first = wait_for(lambda: checkout.place("model_train", config), 60, "the training starts")
    wait_for(lambda: resumable(checkout, "five"), 300, "an epoch is kept")
    lost = {"first": first, "other": {"a": "b", "b": "a"}[first]}[role]
    checkout.cluster.machines[lost].kill()
    checkout.cluster.machines[lost].start()
    checkout.cluster.start(lost)
    checkout.end(program)
    manifest = checkout.manifest(config)
    assert found(manifest, "model_train") == undisturbed
    assert manifest["steps"]["model_train"]["job"].endswith({"first": "-2", "other": "-1"}[role])
    log = checkout.run("-m", "pipeline", "log", "model_train", "--config", config)
    assert "training on a, b" in log
    assert "continuing after epoch" in log
    assert (f"{lost} is gone; the training goes on with another machine" in log) == (role == "other")
    assert checkout.at_work() == {}


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


def resumable(checkout: Checkout, folder: str) -> set[str]:
    """The work that the store has something of to go on from."""
    look = f"import s3fs; print(s3fs.S3FileSystem().find('shared/{folder}'))"
    out = checkout.cluster.machines["user"].run(sys.executable, "-c", look, env=checkout.cluster.env)
    return set(re.findall(r"/resume/([\w.]+)/index.json", out))
