"""How fast a replica trains and predicts with a worker's resources: a few steps on random pixels, in their own task."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from googlenet.arithmetic import FP32, Arithmetic, compile_network
from pipelines.allocator import KEEP_FREED_MEMORY
from pipelines.recipes import Recipe
from pipelines.resources import Resources

STEPS = 3
VIEWS = 48


@dataclass(frozen=True)
class Trial:
    """What was measured.

    Attributes:
        seconds_per_step: of training, without reading images; by arithmetic, in the order asked for.
        setup_seconds: of the first step more than of another: compilation.
        passes_per_second: forward passes of an evaluation in fp32, not compiled.
        parameters: of one network.
    """

    seconds_per_step: tuple[float, ...]
    setup_seconds: tuple[float, ...]
    passes_per_second: float
    parameters: int


def run_trial(recipe: Recipe, resources: Resources, classes: int, arithmetics: Sequence[Arithmetic] = (FP32,)) -> Trial:
    """Measure on the connected cluster, with what one worker of a replica reserves."""
    import ray

    task = ray.remote(
        num_cpus=resources.cpus_per_worker,
        num_gpus=resources.gpus_per_worker,
        resources=dict(resources.custom),
        max_calls=1,
        runtime_env={"env_vars": KEEP_FREED_MEMORY},
    )(_try)
    found: Trial = ray.get(task.remote(recipe, classes, tuple(arithmetics)))
    return found


def use_own_cpus() -> None:
    """As many threads as CPUs were reserved for this Ray worker, so that replicas on one node do not fight."""
    import cv2
    import torch

    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    cv2.setNumThreads(0)


def _try(recipe: Recipe, classes: int, arithmetics: Sequence[Arithmetic]) -> Trial:
    import torch

    from googlenet.preprocessing import SCRATCH_PREPROCESSING

    use_own_cpus()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    times = [_times(_step(recipe, classes, device, arithmetic)) for arithmetic in arithmetics]
    model = _model(recipe, classes, device).eval()
    views = SCRATCH_PREPROCESSING(_pixels(VIEWS, recipe.crop_px).to(device))
    with torch.inference_mode():
        _, forward = _times(lambda: model(views).logits.sum().item())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Trial(
        tuple(seconds for _, seconds in times), tuple(setup for setup, _ in times), VIEWS / forward, parameters
    )


def _step(recipe: Recipe, classes: int, device: str, arithmetic: Arithmetic) -> Callable[[], object]:
    """One worker's step, as often as it is called."""
    import torch

    from googlenet.loop import LoopSettings, TrainState, train_step
    from googlenet.optim import PolyakAverage, build_sgd
    from googlenet.preprocessing import SCRATCH_PREPROCESSING
    from googlenet.training_batches import Batch

    model = _model(recipe, classes, device)
    optimizer = build_sgd(
        model, momentum=recipe.momentum, weight_decay=recipe.weight_decay, decay_biases=recipe.decay_biases
    )
    forward = compile_network(model) if arithmetic.compiled else model
    state = TrainState(model, optimizer, PolyakAverage(model, 10), forward=forward)
    settings = LoopSettings(recipe.rate(), 1000, SCRATCH_PREPROCESSING, 0, precision=arithmetic.precision)
    images = -(-recipe.batch_size // recipe.workers_per_replica)
    batch = Batch.whole(_pixels(images, recipe.crop_px), torch.zeros(images, dtype=torch.int64))
    return lambda: train_step(state, batch, settings)


def _model(recipe: Recipe, classes: int, device: str) -> Any:
    import torch

    from googlenet.initialisation import initialise
    from googlenet.model import GoogLeNet
    from googlenet.randomness import torch_generator

    model = GoogLeNet(
        classes,
        recipe.variant,
        recipe.aux_heads,
        recipe.width,
        lrn=recipe.lrn,
        dropout=(recipe.dropout, recipe.aux_dropout),
    )
    initialise(model, recipe.initialisation, torch_generator(0, "initial_weights"))
    return model.to(device).to(memory_format=torch.channels_last)


def _pixels(images: int, crop_px: int) -> Any:
    import torch

    from googlenet.randomness import torch_generator

    drawn = torch.randint(
        0, 256, (images, 3, crop_px, crop_px), dtype=torch.uint8, generator=torch_generator(0, "sampling")
    )
    return drawn.contiguous(memory_format=torch.channels_last)


def _times(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that the first call takes more than others, and the median of the others."""
    first, *others = (_seconds(work) for _ in range(1 + STEPS))
    typical = sorted(others)[len(others) // 2]
    return max(0.0, first - typical), typical


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
