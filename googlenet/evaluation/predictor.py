"""Prediction of images by K replicas on V views: probabilities averaged over the views of each crop policy."""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from googlenet.evaluation.ahead import prepared_ahead
from googlenet.evaluation.averages import PendingPredictions, Prediction, Shares, averaged
from googlenet.evaluation.crops import (
    CROP_POLICIES,
    Box,
    DistinctViews,
    Policy,
    distinct_views,
    view_groups,
    views_of,
    views_of_all,
)
from googlenet.evaluation.stem_sharing import SharedViews
from googlenet.evaluation.views import cut_views
from googlenet.images.scaled_image import ScaledImage
from googlenet.network.arithmetic import FP32, Arithmetic, compile_network
from googlenet.network.model import GoogLeNet, fold_batch_norm
from googlenet.network.preprocessing import Preprocessing
from googlenet.network.weights import Replica
from googlenet.shapes import Float64, UInt8

T = TypeVar("T")
# How a replica prepares its input, and its network, which may be compiled.
_Network = tuple[Preprocessing, Any]
# Every image has 48, 96 or 144 distinct windows, or few: full batches without padding, within a processor's caches.
VIEWS_PER_BATCH = 48
# Small crops leave room for all views at once.
SMALL_CROP_PX = 128
VIEWS_PER_BATCH_OF_SMALL_CROPS = 144
# A GPU is only busy with more: the 144 views of an image, ten views of 16 images, or four times as many small ones.
VIEWS_PER_BATCH_ON_GPU = 160
SMALL_VIEWS_PER_BATCH_ON_GPU = 640
# As many as are in a shard of predictions.
IMAGES_AT_ONCE_ON_GPU = 16


@dataclass(frozen=True, eq=False)
class _SentImage:
    """An image at all scales on the device, its windows, and whether the probabilities of its views are kept."""

    scaled: list[Tensor]
    distinct: DistinctViews
    shares: Shares
    keeps_views: bool


class Predictor:
    """Softmax outputs averaged over views, for each replica.

    An image goes to the device at its four scales; views are cut, predicted and averaged there. On a CPU, each image is
    computed on its own: its probabilities do not depend on other images, their order or the number of workers. On a
    GPU, images with few views share batches.

    Args:
        replicas: the networks.
        crop_px: side of the views.
        policies: crop policies.
        device: a CPU or a CUDA GPU, as PyTorch names it.
        arithmetic: precision, and whether it is compiled.
        at_once: images whose views share batches; by default as many as suit the device.

    Raises:
        ValueError: it cannot compute on such a device.

    Attributes:
        device: the device by its name; that of a GPU has its number.
        forward_passes: views computed so far, summed over the replicas.
        all_passes: 0; one that stops early counts here the views that would have been computed without stopping.
        shares_stem: whether the first layers are computed once for the crops of a square; on a CPU by default, where
            that was measured. Compiled networks, which take one shape only, never do.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        crop_px: int,
        policies: Sequence[Policy] = CROP_POLICIES,
        device: str | torch.device = "cpu",
        arithmetic: Arithmetic = FP32,
        at_once: int | None = None,
    ) -> None:
        self.crop_px, self.device, self.arithmetic = crop_px, name_of_device(device), arithmetic
        self.shares_stem = self.device == "cpu"
        self._networks: list[_Network] = [
            (replica.preprocessing, self._for_inference(replica.model)) for replica in replicas
        ]
        on = torch.device(self.device)
        self._prepare = {replica.preprocessing: replica.preprocessing.on(on) for replica in replicas}
        self._set_policies(policies, at_once)

    def _set_policies(self, policies: Sequence[Policy], at_once: int | None) -> None:
        self.policies, self.forward_passes, self.all_passes = tuple(policies), 0, 0
        views = views_of_all(self.policies, self.crop_px)
        self._groups = np.array([mask / mask.sum() for mask in view_groups(views).values()]).reshape(-1, len(views))
        self._at_once = at_once or images_at_once(self.crop_px, len(views), self.device)
        self._batch_size = min(largest_batch(self.crop_px, self.device), len(views) * self._at_once)

    def with_policies(self, policies: Sequence[Policy]) -> "Predictor":
        """Return a predictor for other crop policies that computes with the same networks, not with copies of them."""
        other = copy(self)
        other._set_policies(policies, None)
        return other

    def warm_up(self) -> None:
        """Do the one-time work that would delay the first image, above all compilation."""
        views = torch.zeros(self._batch_size, 3, self.crop_px, self.crop_px, dtype=torch.uint8)
        self._probabilities(views.contiguous(memory_format=torch.channels_last).to(self.device), self._networks)

    def _for_inference(self, model: GoogLeNet) -> Any:
        network: Any = fold_batch_norm(model)
        network.to(device=self.device, memory_format=torch.channels_last)
        for layer in network.children():
            if layer is not network.classifier:
                layer.to(self.arithmetic.dtype)
        return compile_network(network) if self.arithmetic.compiled else network

    def predict(self, image: ScaledImage, keep_views: bool = False) -> Prediction:
        """Predict one image, scaled to all sizes that the policies need.

        With ``keep_views``, the result also has each of the 144 views alone, which the policies must need.
        """
        [prediction] = self._predicted(self._sent([(image, keep_views)])).wait()
        return prediction

    def predict_each(
        self, images: Iterable[ScaledImage], keep_views: Iterable[bool] = repeat(False)
    ) -> Iterator[Prediction]:
        """Predict images in order, each as by :meth:`predict`; ``keep_views`` is by image.

        The next one is sent, and the last one brought home, while a GPU computes.
        """
        pending: PendingPredictions | None = None
        for group in prepared_ahead(self._sent, _in_groups(zip(images, keep_views, strict=False), self._at_once)):
            last, pending = pending, self._predicted(group)
            if last:
                yield from last.wait()
        if pending:
            yield from pending.wait()

    def predict_views(self, image: ScaledImage) -> Float64[np.ndarray, "k v c"]:
        """Return (K, V, C) float64: softmax outputs of each view alone, in the order of :func:`views_of_all`."""
        [sent] = self._sent([(image, False)])
        probabilities: Float64[np.ndarray, "k d c"] = self._of_windows([sent]).cpu().numpy()
        return probabilities[:, sent.distinct.positions]

    def predict_windows(
        self, scaled: Sequence[UInt8[Tensor, "_ _ 3"]], replicas: Sequence[int], boxes: Sequence[Box]
    ) -> Float64[np.ndarray, "k d c"]:
        """Return the softmax outputs of some replicas, by their positions, for windows of an image on the device."""
        networks = [self._networks[replica] for replica in replicas]
        pixels = cut_views(scaled, boxes, self.crop_px)
        probabilities: Float64[np.ndarray, "k d c"] = self._probabilities(pixels, networks).cpu().numpy()
        return probabilities

    def _sent(self, images: Sequence[tuple[ScaledImage, bool]]) -> list[_SentImage]:
        """Send images to the device; the flag of an image says whether its views are kept."""
        sent = []
        for image, keeps_views in images:
            distinct = distinct_views(image.width, image.height, self.crop_px, self.policies)
            shares = Shares.of(distinct, self._groups, self.device)
            sent.append(_SentImage(self.on_device(image), distinct, shares, keeps_views))
        return sent

    def on_device(self, image: ScaledImage) -> list[UInt8[Tensor, "h w 3"]]:
        """Copy the pixels of all scales to the device at once, from pinned memory to a GPU, which need not wait."""
        sizes = [pixels.size for pixels in image.scaled]
        # On the CPU also where a program has set another default device.
        is_pinned = self.device.startswith("cuda")
        block = torch.empty(sum(sizes), dtype=torch.uint8, device="cpu", pin_memory=is_pinned)
        np.concatenate([pixels.reshape(-1) for pixels in image.scaled], out=block.numpy())
        parts = torch.split(block.to(self.device, non_blocking=True), sizes)
        return [part.view(pixels.shape) for part, pixels in zip(parts, image.scaled, strict=True)]

    @torch.inference_mode()
    def _predicted(self, group: Sequence[_SentImage]) -> PendingPredictions:
        """Predict images that are on the device, and begin to bring home the results."""
        each = torch.split(self._of_windows(group), [len(image.distinct.boxes) for image in group], dim=1)
        means = [averaged(p, image.shares) for p, image in zip(each, group, strict=True)]
        for fields, p, image in zip(means, each, group, strict=True):
            if image.keeps_views:
                fields["by_view"] = p[:, self._windows_of_144(image.distinct)].half()
        return PendingPredictions(means)

    def _windows_of_144(self, distinct: DistinctViews) -> list[int]:
        """Return the window of each of the 144 views."""
        at = {view: position for position, view in enumerate(views_of_all(self.policies, self.crop_px))}
        members = [at[view] for view in views_of(CROP_POLICIES[-1], self.crop_px)]
        windows: list[int] = distinct.positions[members].tolist()
        return windows

    @torch.inference_mode()
    def _of_windows(self, group: Sequence[_SentImage]) -> Float64[Tensor, "k d c"]:
        """Return the probabilities of all windows of the images by each replica."""
        if self.shares_stem and not self.arithmetic.compiled and len(group) == 1:
            [image] = group
            if shared := SharedViews.cut(image.scaled, image.distinct.boxes, self.crop_px):
                return self._of_shared(shared)
        views = [cut_views(image.scaled, image.distinct.boxes, self.crop_px) for image in group]
        return self._probabilities(torch.cat(views) if len(views) > 1 else views[0], self._networks)

    def _of_shared(self, views: SharedViews) -> Float64[Tensor, "k d c"]:
        """Return the probabilities of windows whose stems are shared, by each replica."""
        self.forward_passes += len(views.order) * len(self._networks)
        logits = []
        for preprocessing, network in self._networks:
            with self.arithmetic.in_force(self.device):
                prepare = self._prepare[preprocessing]
                logits.append(views.logits(network, prepare, self.arithmetic, self._batch_size))
        return _softmax(logits)

    @torch.inference_mode()
    def _probabilities(
        self, views: UInt8[Tensor, "d 3 crop crop"], networks: Sequence[_Network]
    ) -> Float64[Tensor, "k d c"]:
        """Return the probabilities of D distinct views by each of some ``networks``, one or more."""
        self.forward_passes += len(views) * len(networks)
        logits: list[list[Tensor]] = [[] for _ in networks]
        for batch in torch.split(views, self._batch_size):
            whole = self._whole_batch(batch)
            inputs = {name: prepare(whole).to(self.arithmetic.dtype) for name, prepare in self._prepare.items()}
            for outputs, (preprocessing, network) in zip(logits, networks, strict=True):
                with self.arithmetic.in_force(self.device):
                    outputs.append(network(inputs[preprocessing]).logits[: len(batch)])
        return _softmax([torch.cat(outputs) for outputs in logits])

    def _whole_batch(self, batch: UInt8[Tensor, "d 3 crop crop"]) -> UInt8[Tensor, "whole 3 crop crop"]:
        """Fill up a batch with its first view if the network is compiled, and so takes one shape only."""
        missing = self._batch_size - len(batch)
        if not self.arithmetic.compiled or not missing:
            return batch
        filled = torch.cat([batch, batch[:1].expand(missing, -1, -1, -1)])
        return filled.contiguous(memory_format=torch.channels_last)


def _softmax(logits: Sequence[Tensor]) -> Float64[Tensor, "k d c"]:
    return torch.stack(list(logits)).double().softmax(dim=2)


def name_of_device(device: str | torch.device) -> str:
    """Return PyTorch's name of a device, that of a GPU with its number: each thread has a current GPU of its own.

    Raises:
        ValueError: it is neither a CPU nor a CUDA GPU; not all others compute in float64, as averages need.
    """
    chosen = torch.device(device)
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, where averages are computed in float64, got {str(device)!r}")
    if chosen.type == "cpu":
        return "cpu"
    return f"cuda:{torch.cuda.current_device() if chosen.index is None else chosen.index}"


def largest_batch(crop_px: int, device: str = "cpu") -> int:
    """Return the largest number of views in a batch."""
    is_small = crop_px <= SMALL_CROP_PX
    if device == "cpu":
        return VIEWS_PER_BATCH_OF_SMALL_CROPS if is_small else VIEWS_PER_BATCH
    return SMALL_VIEWS_PER_BATCH_ON_GPU if is_small else VIEWS_PER_BATCH_ON_GPU


def images_at_once(crop_px: int, views: int, device: str) -> int:
    """Return how many images of ``views`` views share batches: one on a CPU, as many as fill a batch on a GPU."""
    if device == "cpu":
        return 1
    return min(max(1, largest_batch(crop_px, device) // views), IMAGES_AT_ONCE_ON_GPU)


def _in_groups(images: Iterable[T], size: int) -> Iterator[list[T]]:
    remaining = iter(images)
    while group := list(islice(remaining, size)):
        yield group
