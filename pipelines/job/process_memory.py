"""Memory that a training worker and a predictor need, estimated from their networks before many of them start.

The factors are measured maxima of single processes (tests/pipelines/job/test_process_memory.py measures again).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from googlenet.images.records import DEFAULT_CACHE_BYTES

if TYPE_CHECKING:
    from googlenet.network.model import GoogLeNet

# Python with PyTorch and Ray; with CUDA's libraries, an estimate that has never been measured.
PROCESS_BYTES, GPU_PROCESS_BYTES = 700_000_000, 3_000_000_000
# Processes that load samples for a GPU.
LOADER_BYTES = 400_000_000
# Weights, gradients, momentum and average, and a checkpoint of three of them that is being written.
TRAINED_COPIES = 7
# The loaded weights, and those folded for inference.
PREDICTING_COPIES = 2
# Memory of one view in inference, in units of the largest output: by variant, since local response normalisation has
# large intermediate results.
INFERENCE_OUTPUTS = {"bn": 3.5, "paper": 8.5}


def training_bytes(
    model: "GoogLeNet", batch_size: int, crop_px: int, *, workers: int = 1, on_gpu: bool, loader_processes: int
) -> int:
    """Return the memory, of its node and not its GPU, of each of the workers that train with batches of that size."""
    from googlenet.training.micro_batch import bytes_per_image, micro_batch_images

    fixed = TRAINED_COPIES * _weights_bytes(model) + 2 * DEFAULT_CACHE_BYTES  # training and validation images
    if on_gpu:
        return GPU_PROCESS_BYTES + fixed + loader_processes * LOADER_BYTES
    images = -(-batch_size // workers)
    at_once = min(images, micro_batch_images(model, crop_px, workers, on_gpu=False) or images)
    return PROCESS_BYTES + fixed + int(at_once * bytes_per_image(model, crop_px))


def prediction_bytes(models: "Sequence[GoogLeNet]", crop_px: int) -> dict[str, int]:
    """Return the memory of a predictor of ``models`` on a CPU ("cpu"), and on the node of its GPU ("gpu")."""
    from googlenet.evaluation.predictor import largest_batch
    from googlenet.network.complexity import output_bytes

    weights = PREDICTING_COPIES * sum(_weights_bytes(model) for model in models)
    # Replicas of one width have the same outputs.
    distinct = {(model.variant, model.width, model.num_classes): model for model in models}.values()
    per_view = max(INFERENCE_OUTPUTS[model.variant] * max(output_bytes(model, crop_px)) for model in distinct)
    return {
        "cpu": PROCESS_BYTES + weights + int(largest_batch(crop_px) * per_view),
        "gpu": GPU_PROCESS_BYTES + weights,
    }


def _weights_bytes(model: "GoogLeNet") -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
