"""The crucial arithmetic, broken on purpose in one place at a time: does a test notice?

    python -m tests.mutants
    python -m tests.mutants --only resume

Each mutant is a copy of the project with one piece of text replaced. The tests named with it have to fail. The command
ends with an error where one survives; that each mutant still fits the code is part of the suite (test_mutants.py).
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from tests.project import ROOT

COPIED = ("benchmarks", "cluster", "experiments", "googlenet", "pipelines", "pyproject.toml", "tests")


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in ``file``; ``tests``, of the files in tests/, have to notice."""

    claim: str
    file: str
    old: str
    new: str
    tests: str


def mutants() -> list[Mutant]:
    """Of crops, averaging, metrics, sampling, training, resume, the ledger and the files."""
    crops, views = (
        ("googlenet/evaluation/crops.py", "googlenet/evaluation/test_crops.py"),
        ("googlenet/evaluation/views.py", "googlenet/evaluation/test_crops.py"),
    )
    scaling = ("googlenet/images/scaled_image.py", "googlenet/evaluation/test_crops.py")
    predictor = ("googlenet/evaluation/predictor.py", "googlenet/evaluation/test_predictor.py")
    metrics = ("googlenet/evaluation/metrics.py", "googlenet/evaluation/test_metrics.py")
    sampling = ("googlenet/training/augment.py", "googlenet/training/test_augment.py")
    batches = ("googlenet/training/batches.py", "googlenet/training/test_batches.py")
    loop, optim = (
        ("googlenet/training/loop.py", "googlenet/training/test_loop.py"),
        ("googlenet/training/optim.py", "googlenet/training/test_loop.py"),
    )
    resume = ("pipelines/training/replica.py", "pipelines/training/test_replica.py")
    checkpoints = ("pipelines/training/checkpoints.py", "pipelines/training/test_checkpoints.py")
    ledger = ("pipelines/evaluation/sharded_prediction.py", "pipelines/evaluation/test_sharded_prediction.py")
    tally = ("pipelines/report/tally.py", "pipelines/report/test_report.py")
    found = [
        ("crops: the scales are the paper's four", crops, "9 * seventh", "10 * seventh"),
        ("crops: the middle square is in the middle", crops, "slack // 2", "slack // 3"),
        ("crops: the last square ends with the image", crops, "slack // 2, slack)", "slack // 2, slack - 1)"),
        ("crops: a scaled side is rounded to the nearest", scaling, "* scale_px + shorter)", "* scale_px)"),
        ("crops: the centre crop is in the centre", crops, "middle = far // 2", "middle = far // 2 + 1"),
        ("crops: portrait images are cut downwards", crops, "else (0, offset)", "else (offset, 0)"),
        ("crops: every view counts alike", crops, "minlength=len(index)) / count", "minlength=len(index)) / 100"),
        ("crops: ten crops are the corners and the centre", crops, 'view.kind != "resized"', 'view.kind != "centre"'),
        ("crops: a mirrored view is one", views, "upright[place], 1, dst", "upright[place], 0, dst"),
        ("averaging: softmax outputs are averaged, not logits", predictor, ".softmax(dim=1).cpu()", ".cpu()"),
        ("averaging: each policy has its own views", predictor, "distinct.weights @ p", "distinct.weights[:1] @ p"),
        ("averaging: the ensemble is the mean", predictor, "np.mean(by_replica, axis=0)", "by_replica[0]"),
        ("averaging: what fills a batch up is dropped", predictor, ".logits[: len(batch)]", ".logits"),
        (
            "averaging: views without numbers are not counted",
            predictor,
            "distinct.weights @ finite",
            "distinct.weights @ (finite | True)",
        ),
        ("metrics: five answers count", metrics, "TOP_K = (1, 5)", "TOP_K = (1, 4)"),
        ("metrics: of equal answers the first counts", metrics, "< labels[:, None]", "<= labels[:, None]"),
        (
            "metrics: an ensemble's members are its own",
            metrics,
            "probabilities[:, members[-1]]",
            "probabilities[:, members[0]]",
        ),
        ("metrics: an interval is of 95 %", metrics, "CONFIDENCE_PERCENT = 95.0", "CONFIDENCE_PERCENT = 90.0"),
        (
            "metrics: images are drawn with replacement",
            metrics,
            "generator.multinomial(images, np",
            "generator.multinomial(1, np",
        ),
        ("sampling: area is drawn from its range", sampling, "generator.uniform(*sampling.area)", "sampling.area[1]"),
        ("sampling: half of the samples are mirrored", sampling, "sampling.mirror and", "not sampling.mirror and"),
        ("sampling: an epoch has samples of its own", batches, '"sampling", self.epoch, index', '"sampling", 0, index'),
        (
            "sampling: an epoch has an order of its own",
            ("googlenet/training/epoch_order.py", "googlenet/training/test_epoch_order.py"),
            '"order", epoch)',
            '"order", 0)',
        ),
        (
            "sampling: shares of a batch are disjoint",
            ("googlenet/training/data_parallel.py", "googlenet/training/test_data_parallel.py"),
            "items[self.rank :: self.workers]",
            "items[:: self.workers]",
        ),
        ("training: the rate falls by 4 %", optim, "step_factor: float = 0.96", "step_factor: float = 0.94"),
        ("training: auxiliary losses count 0.3", loop, "AUX_LOSS_WEIGHT = 0.3", "AUX_LOSS_WEIGHT = 0.4"),
        ("training: the average follows the weights", optim, "share = 1 / min", "share = 0.5 / min"),
        ("training: each step drops others", loop, '"dropout", state.step', '"dropout", 0'),
        (
            "training: workers' gradients are those of one",
            ("googlenet/training/loop.py", "googlenet/training/test_data_parallel.py"),
            "settings.share.workers * total_loss",
            "1 * total_loss",
        ),
        ("resume: momentum is restored", loop, "if name in momentum:", "if name in {}:"),
        ("resume: the average is restored", loop, 'self.average.load(_below("average", tensors))', "pass"),
        (
            "resume: dropout goes on where it was",
            loop,
            '"dropout", state.step',
            '"dropout", id(state)',
        ),
        (
            "resume: an epoch goes on at its step",
            resume,
            "first_step=state.step - epoch * settings.steps_per_epoch",
            "first_step=0",
        ),
        ("resume: the history goes on", resume, 'checkpoint.progress["history"], checkpoint', "[], checkpoint"),
        (
            "resume: a damaged checkpoint is passed over",
            checkpoints,
            'if rest != f"{_digest(data)}{SUFFIX}":',
            "if False:",
        ),
        ("resume: the newest checkpoint is taken", checkpoints, "reversed(self._names())", "self._names()"),
        ("ledger: predictions of other weights are done again", ledger, "== job.ensemble:", "is not None:"),
        ("ledger: what is there is not done again", ledger, "if shard not in present]", "]"),
        (
            "ledger: the last shard is whole",
            ledger,
            "(shard + 1) * IMAGES_PER_SHARD, images)",
            "(shard + 1) * IMAGES_PER_SHARD, images - 1)",
        ),
        (
            "ledger: an image that is missing is named",
            tally,
            '"not predicted": [name for name in wanted if name not in seen]',
            '"not predicted": []',
        ),
        ("ledger: all views of all replicas were seen", tally, "views !=", "views >"),
        (
            "files: a file appears whole",
            ("pipelines/run/storage.py", "pipelines/run/test_storage.py"),
            'f"{target}{PARTIAL}{uuid.uuid4().hex[:8]}"',
            "target",
        ),
    ]
    return [Mutant(claim, place[0], old, new, place[1]) for claim, place, old, new in found]


@dataclass(frozen=True)
class Arguments:
    """Break the code in one place after the other, and run the tests that should notice."""

    only: str = ""
    """Only claims that hold this text."""
    timeout_seconds: float = 300.0
    """A mutant whose tests take longer counts as noticed: they hang."""


def is_noticed(mutant: Mutant, project: Path, timeout_seconds: float) -> bool:
    """Whether a test fails on ``mutant``, applied to the copy in ``project`` and taken back."""
    file = project / mutant.file
    original = file.read_text()
    file.write_text(original.replace(mutant.old, mutant.new))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{mutant.tests}"]
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return (
            subprocess.run(
                command, cwd=project, env=environment, capture_output=True, timeout=timeout_seconds, check=False
            ).returncode
            == 1
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        file.write_text(original)


def main(arguments: Arguments) -> int:
    """Print what became of each mutant; 1 if any survives."""
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, Path(folder) / name)
        for mutant in mutants():
            if arguments.only not in mutant.claim:
                continue
            started = time.monotonic()
            noticed = is_noticed(mutant, Path(folder), arguments.timeout_seconds)
            survivors += not noticed
            word = "noticed " if noticed else "SURVIVED"
            print(f"{word} {time.monotonic() - started:4.0f} s  {mutant.claim}  ({mutant.file})", flush=True)
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
