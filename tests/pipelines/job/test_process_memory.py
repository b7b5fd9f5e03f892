"""Tests of the estimated memory of processes: close to what one takes, and growing with what it is given."""

import json

import pytest

from googlenet.network.model import GoogLeNet
from pipelines.job.process_memory import DEFAULT_CACHE_BYTES, prediction_bytes, training_bytes
from pipelines.job.worker_process import KEEP_FREED_MEMORY
from tests.commands import run_python

# A training step, or a batch of views, in a process like Ray's; prints the highest memory of the process, in bytes.
MEASURE = """
import sys
import ray.data, torch
torch.set_num_threads(1)
from googlenet.evaluation.predictor import Predictor, largest_batch
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weights import Replica
from googlenet.training.learning_rate import LearningRate
from googlenet.training.loader import Batch
from googlenet.training.loop import LoopSettings, TrainState, train_step
from googlenet.training.micro_batch import micro_batch_images
from googlenet.training.optim import PolyakAverage, build_sgd
variant, crop_px, images = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model = GoogLeNet(10, variant, aux_heads=False).to(memory_format=torch.channels_last)
if images:
    optimizer = build_sgd(model, momentum=0.9, weight_decay=2e-4, decay_biases=True)
    part = micro_batch_images(model, crop_px, 1, on_gpu=False)
    settings = LoopSettings(LearningRate(0.001, "paper", 0, 1), 1, SCRATCH_PREPROCESSING, 0, micro_batch=part)
    pixels = torch.zeros(images, 3, crop_px, crop_px, dtype=torch.uint8)
    batch = Batch.whole(pixels, torch.zeros(images, dtype=torch.int64))
    train_step(TrainState(model, optimizer, PolyakAverage(model, 1000)), batch, settings)
else:
    Predictor([Replica(model.eval(), SCRATCH_PREPROCESSING)], crop_px).warm_up()
# Not ru_maxrss, which begins with that of the process that started this one.
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(1024 * int(peak.split()[1]))
"""


@pytest.mark.processes
@pytest.mark.timeout(200)
@pytest.mark.parametrize(("variant", "images"), [("paper", 0), ("bn", 16), ("paper", 40)])
def test_a_process_takes_what_is_estimated_or_less(variant: str, images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEEP_FREED_MEMORY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTHONPATH", raising=False)  # of a search path on which no garbage is looked for
    model, crop_px = GoogLeNet(10, variant, aux_heads=False), 140
    ended = run_python("-c", MEASURE, variant, str(crop_px), str(images))
    assert ended.code == 0, ended.stderr
    estimated = (
        training_bytes(model, images, crop_px, on_gpu=False, loader_processes=0) - 2 * DEFAULT_CACHE_BYTES
        if images
        else prediction_bytes([model], crop_px)["cpu"]
    )
    assert 0.7 * estimated <= json.loads(ended.stdout) <= estimated


def test_the_estimate_follows_batch_crop_and_number_of_networks() -> None:
    model = GoogLeNet(10, "bn", aux_heads=False)

    def worker(images: int, crop_px: int, workers: int = 1) -> int:
        return training_bytes(model, images, crop_px, workers=workers, on_gpu=False, loader_processes=0)

    assert worker(64, 224) - worker(32, 224) == pytest.approx(32 * 58e6, rel=0.1)
    assert worker(64, 224, workers=2) == worker(32, 224)
    assert worker(32, 224) > worker(32, 112)
    assert prediction_bytes([model] * 7, 224)["cpu"] > prediction_bytes([model], 224)["cpu"]
    narrow, wide = (GoogLeNet(10, "bn", False, width) for width in (0.125, 0.25))
    both = [prediction_bytes(models, 112)["cpu"] for models in ([narrow, wide], [wide, narrow])]
    assert both[0] == both[1] > prediction_bytes([wide], 112)["cpu"]  # the widest has the largest outputs
    on_gpu = [training_bytes(model, 256, 224, on_gpu=True, loader_processes=count) for count in (1, 7)]
    assert on_gpu[0] < on_gpu[1] < worker(256, 224)  # the images are in the memory of the GPU


def test_a_large_batch_of_the_papers_network_takes_the_memory_of_its_parts() -> None:
    model = GoogLeNet(1000, "paper")
    small, large = (training_bytes(model, batch_size, 224, on_gpu=False, loader_processes=0) for batch_size in (8, 256))
    assert small == large
    assert large - 2 * DEFAULT_CACHE_BYTES < 2_000_000_000
