"""Micro-batches: a worker computes the gradients of a large batch part by part, and holds the activations of one part.

The parts' gradients are added before the step, which is the batch's own apart from rounding. Batch normalisation takes
its statistics over the whole batch, so its activations have to be there at once.
"""

from collections.abc import Iterator

from googlenet.network.complexity import output_bytes
from googlenet.network.layers import DropoutMasks
from googlenet.network.model import GoogLeNet
from googlenet.training.graphs import StepInputs

# Memory of one image in training, in units of the outputs of all layers: measured maxima.
TRAINING_OUTPUTS = {"bn": 4.5, "paper": 5.5}
# Memory of the activations of a part: eight images of the paper's network at 224 px.
MICRO_BATCH_BYTES = 590_000_000


def bytes_per_image(model: GoogLeNet, crop_px: int) -> float:
    """Return the memory that a training step of ``model`` needs for each image, in fp32."""
    return TRAINING_OUTPUTS[model.variant] * sum(output_bytes(model, crop_px))


def micro_batch_images(model: GoogLeNet, crop_px: int, workers: int, *, on_gpu: bool) -> int | None:
    """Return for how many images a worker computes gradients at a time; None for its whole batch.

    It is None for batch normalisation, for GPUs, which small batches leave idle, and for several workers, which
    exchange gradients once for each backward pass.
    """
    if model.variant == "bn" or on_gpu or workers > 1:
        return None
    return max(1, int(MICRO_BATCH_BYTES / bytes_per_image(model, crop_px)))


def parts_of(inputs: StepInputs, most_images: int | None) -> Iterator[StepInputs]:
    """Yield ``inputs`` in as few parts as there can be with at most ``most_images`` images, of about equal sizes."""
    images = len(inputs.images)
    number = 1 if most_images is None else max(1, -(-images // most_images))
    bounds = [images * part // number for part in range(number + 1)]
    for part in map(slice, bounds, bounds[1:]):
        masks = DropoutMasks(*(None if mask is None else mask[part] for mask in inputs.masks))
        targets = None if inputs.targets is None else inputs.targets[part]
        yield StepInputs(inputs.images[part], inputs.labels[part], masks, targets)
