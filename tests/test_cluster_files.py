"""The files of docs/cluster.md that users copy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml

from pipeline.runtime.project import read_config

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "cluster"


def test_the_cluster_has_the_locked_ray_and_valid_pods() -> None:
    cluster = yaml.safe_load((FOLDER / "raycluster.yaml").read_text())["spec"]
    assert f"ray=={cluster['rayVersion']}\n" in (ROOT / "requirements.ray.lock").read_text()
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **group["template"]}
        kubernetes_validate.validate(pod, "1.31", strict=True)
    assert cluster["authOptions"] == {"mode": "token"}


def test_the_image_has_what_the_project_has() -> None:
    dockerfile = (FOLDER / "Dockerfile").read_text()
    [torch] = re.findall(r"torch==[\d.]+", (ROOT / "Makefile").read_text())
    assert torch in dockerfile
    command = [Path(sys.executable).with_name("hadolint"), FOLDER / "Dockerfile"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


def test_the_batch_script_is_one() -> None:
    said = subprocess.run(["bash", "-n", FOLDER / "ray.sbatch"], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")


def test_the_config_of_the_page_is_one(tmp_path: Path) -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)
    (tmp_path / "coco.yaml").write_text(f"name: coco\n{example}")
    config = read_config(tmp_path / "coco.yaml")
    asked = {step: str(config.machine(step)) for step in ("data_prep", "model_train", "model_eval")}
    assert asked == {
        "data_prep": "16 CPUs, 64 GB",
        "model_train": "2 machines with 64 CPUs, 8 GPUs",
        "model_eval": "1 CPUs",
    }
    assert config.machine("data_load").here
