"""A student in training: each image gets its own target, also after an interruption."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from pipelines.run.dataset import image_ids, open_records, read_manifest
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.teacher import write_targets
from pipelines.training.replica import train_replica
from pipelines.training.task import ReplicaTask
from tests.pipelines.training.test_replica import Killed, interrupt_after

pytestmark = pytest.mark.timeout(200)


def test_answers_that_are_the_labels_teach_what_the_labels_teach(
    prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At temperature 1 the divergence from certain answers is the cross-entropy: no image may get another's target."""
    monkeypatch.setattr("pipelines.training.replica.use_own_cpus", lambda: None)
    torch.set_num_threads(1)
    labels = replace(tiny_recipe, replicas=1, label_smoothing=0.0)
    student = replace(labels, teacher="/teacher", teacher_temperature=1.0, label_weight=0.0)
    runs = {name: Storage.at(str(shutil.copytree(prepared_run, tmp_path / name))) for name in ("labels", "student")}
    manifest = read_manifest(runs["student"])
    train = manifest.splits["train"]
    records = open_records(runs["student"], train)
    own = np.eye(3, dtype=np.float32)[[records[index].label for index in range(len(records))]]
    about = {"dataset_digest": manifest.digest}
    write_targets(runs["student"], image_ids(runs["student"], train), own, about)

    train_replica(ReplicaTask(runs["labels"], labels, 0))
    with monkeypatch.context() as patched, pytest.raises(Killed):
        interrupt_after(patched, 4)
        train_replica(ReplicaTask(runs["student"], student, 0, checkpoint_seconds=0.0))
    train_replica(ReplicaTask(runs["student"], student, 0))

    found, expected = (
        safetensors.torch.load(run.read("replicas/0/weights.safetensors")) for run in (runs["student"], runs["labels"])
    )
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    for line in runs["student"].read("replicas/0/metrics.jsonl").decode().splitlines():
        metrics = json.loads(line)
        for head in ("logits", "aux_4a", "aux_4d"):
            assert metrics[f"train_loss_teacher_{head}"] == pytest.approx(metrics[f"train_loss_{head}"], rel=1e-4)
