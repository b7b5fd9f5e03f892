"""A finished run of three replicas and seven classes, with everything that a report can show of them."""

import json
from pathlib import Path

import pytest

from pipelines.report.write import write_report
from pipelines.run.claims import claim
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from tests.made_once import made_once
from tests.pipelines.report.made_runs import NOISY, answers, ensemble_of, made_run, predict_as


@pytest.fixture(scope="session")
def letters_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, read-only, with its learning curves; what its report says on the terminal is in terminal.txt."""
    with made_once(tmp_path_factory, "letters") as (folder, is_new):
        if is_new:
            (folder / "run").mkdir(parents=True)
            claim(Storage.at(str(folder / "run")), "recipe", Recipe(replicas=3).to_dict())
            run, ensemble = made_run(folder / "run"), ensemble_of(3)
            line = {"epoch": 1, "train_loss_logits": 1.0, "val_top1_error": 5.0, "val_top1_error_raw_weights": 6.0}
            for replica in range(3):
                run.write(f"replicas/{replica}/metrics.jsonl", f"{json.dumps(line)}\n".encode())
            predict_as(run, answers(*NOISY), ensemble)
            run.write("terminal.txt", write_report(run, ensemble).encode())
    return folder / "run"
