"""Prediction of one image by K replicas on V views: probabilities averaged over the views of each crop policy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, Int32, UInt8
from torch import Tensor

from googlenet.evaluation.crops import (
    CROP_POLICIES,
    DistinctViews,
    Policy,
    View,
    box_of,
    distinct_views,
    num_views,
    view_groups,
    views_of,
    views_of_all,
)
from googlenet.evaluation.views import cut_views
from googlenet.images.scaled_image import ScaledImage
from googlenet.network.arithmetic import FP32, Arithmetic, compile_network
from googlenet.network.model import GoogLeNet, fold_batch_norm
from googlenet.network.weights import Replica

# Every image has 48, 96 or 144 distinct windows, or few: full batches without padding, within a processor's caches.
VIEWS_PER_BATCH = 48
# Small crops leave room for all views at once.
SMALL_CROP_PX = 128
VIEWS_PER_BATCH_OF_SMALL_CROPS = 144


@dataclass(frozen=True)
class Prediction:
    """Prediction of one image by K replicas with P crop policies, for C classes; V views in G groups of views.

    Attributes:
        probabilities: (K, P, C) float32, averaged over the views of each policy.
        max_pooled: (K, C) float32, the maximum over the views of the policy with most views.
        num_views: (K, P) number of views with finite outputs in each average, counting duplicates.
        view_top1: (K + 1, V) the most likely class of each view alone, by each replica and by their average.
        group_top1: (K + 1, G) the same for the average over each group of views.
        by_view: (K, 144, C) float16 of each view alone, if it was asked for.
    """

    probabilities: Float32[np.ndarray, "k p c"]
    max_pooled: Float32[np.ndarray, "k c"]
    num_views: Int32[np.ndarray, "k p"]
    view_top1: Int32[np.ndarray, "k+1 v"]
    group_top1: Int32[np.ndarray, "k+1 g"]
    by_view: Float16[np.ndarray, "k v c"] | None = None


class Predictor:
    """Softmax outputs averaged over views, for each replica.

    Each image is computed on its own: its probabilities do not depend on other images, their order or the number of
    workers.

    Attributes:
        forward_passes: views computed so far, summed over the replicas.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        crop_px: int,
        policies: Sequence[Policy] = CROP_POLICIES,
        device: str = "cpu",
        arithmetic: Arithmetic = FP32,
    ) -> None:
        self.crop_px, self.policies, self.device, self.arithmetic = crop_px, tuple(policies), device, arithmetic
        self.forward_passes = 0
        self._networks = [(replica.preprocessing, self._for_inference(replica.model)) for replica in replicas]
        views = views_of_all(self.policies, crop_px)
        self._groups = np.array([mask / mask.sum() for mask in view_groups(views).values()]).reshape(-1, len(views))
        self._most_views = max(range(len(self.policies)), key=lambda p: num_views(self.policies[p]))
        self._batch_size = min(largest_batch(crop_px), len(views))

    def warm_up(self) -> None:
        """Do the one-time work that would delay the first image, above all compilation."""
        views = torch.zeros(self._batch_size, 3, self.crop_px, self.crop_px, dtype=torch.uint8)
        self._probabilities(views.contiguous(memory_format=torch.channels_last).to(self.device))

    def _for_inference(self, model: GoogLeNet) -> Callable[[Tensor], Any]:
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
        distinct, by_replica = self._distinct(image)
        everyone = [*by_replica, np.mean(by_replica, axis=0)]
        in_largest = distinct.weights[self._most_views] > 0
        return Prediction(
            np.array([distinct.weights @ probabilities for probabilities in by_replica], dtype=np.float32),
            np.array([probabilities[in_largest].max(axis=0) for probabilities in by_replica], dtype=np.float32),
            np.array([_seen(distinct, probabilities) for probabilities in by_replica], dtype=np.int32),
            np.array([p.argmax(axis=1)[distinct.positions] for p in everyone], dtype=np.int32),
            np.array([(self._groups @ p[distinct.positions]).argmax(axis=1) for p in everyone], dtype=np.int32),
            self._by_view(distinct, by_replica) if keep_views else None,
        )

    def _by_view(
        self, distinct: DistinctViews, by_replica: list[Float64[np.ndarray, "d c"]]
    ) -> Float16[np.ndarray, "k v c"]:
        """Return the probabilities of each of the 144 views alone."""
        at = {view: position for position, view in enumerate(views_of_all(self.policies, self.crop_px))}
        members = [at[view] for view in views_of(CROP_POLICIES[-1], self.crop_px)]
        return np.stack(by_replica)[:, distinct.positions[members]].astype(np.float16)

    def predict_views(self, image: ScaledImage) -> Float64[np.ndarray, "k v c"]:
        """Return (K, V, C) float64: softmax outputs of each view alone, in the order of :func:`views_of_all`."""
        distinct, by_replica = self._distinct(image)
        return np.stack(by_replica)[:, distinct.positions]

    def predict_part(
        self, image: ScaledImage, replicas: Sequence[int], views: Sequence[View]
    ) -> Float64[np.ndarray, "k v c"]:
        """Return the softmax outputs of some replicas, given by their positions, for some views."""
        boxes = [box_of(view, image.width, image.height, self.crop_px) for view in views]
        distinct = list(dict.fromkeys(boxes))
        cut = cut_views(image.scaled, distinct, self.crop_px).to(self.device)
        by_replica = self._probabilities(cut, [self._networks[replica] for replica in replicas])
        self.forward_passes += len(distinct) * len(replicas)
        return np.stack(by_replica)[:, [distinct.index(box) for box in boxes]]

    def _distinct(self, image: ScaledImage) -> tuple[DistinctViews, list[Float64[np.ndarray, "d c"]]]:
        """Return the windows of an image, and their (D, C) probabilities for each replica."""
        distinct = distinct_views(image.width, image.height, self.crop_px, self.policies)
        views = cut_views(image.scaled, distinct.boxes, self.crop_px).to(self.device)
        by_replica = self._probabilities(views)
        self.forward_passes += len(views) * len(by_replica)
        return distinct, by_replica

    @torch.inference_mode()
    def _probabilities(
        self, views: UInt8[Tensor, "d 3 crop crop"], networks: Sequence[Any] = ()
    ) -> list[Float64[np.ndarray, "d c"]]:
        """Return the (D, C) probabilities of D distinct views, for each replica or each of some ``networks``."""
        networks = networks or self._networks
        logits: list[list[Tensor]] = [[] for _ in networks]
        for batch in torch.split(views, self._batch_size):
            whole = self._whole_batch(batch)
            inputs = {prepare: prepare(whole).to(self.arithmetic.dtype) for prepare, _ in networks}
            for outputs, (prepare, network) in zip(logits, networks, strict=True):
                with self.arithmetic.in_force(self.device):
                    outputs.append(network(inputs[prepare]).logits[: len(batch)])
        return [torch.cat(outputs).double().softmax(dim=1).cpu().numpy() for outputs in logits]

    def _whole_batch(self, batch: UInt8[Tensor, "d 3 crop crop"]) -> UInt8[Tensor, "whole 3 crop crop"]:
        """Fill up a batch with its first view if the network is compiled, and so takes one shape only."""
        missing = self._batch_size - len(batch)
        if not self.arithmetic.compiled or not missing:
            return batch
        filled = torch.cat([batch, batch[:1].expand(missing, -1, -1, -1)])
        return filled.contiguous(memory_format=torch.channels_last)


def largest_batch(crop_px: int) -> int:
    """Return the largest number of views in a batch."""
    return VIEWS_PER_BATCH_OF_SMALL_CROPS if crop_px <= SMALL_CROP_PX else VIEWS_PER_BATCH


def _seen(distinct: DistinctViews, probabilities: Float64[np.ndarray, "d c"]) -> Float64[np.ndarray, " p"]:
    """Return (P,) views with finite outputs, counted on the computed windows, each standing for its share of views."""
    finite = np.isfinite(probabilities).all(axis=1)
    seen: Float64[np.ndarray, " p"] = np.rint((distinct.weights @ finite) * np.array(distinct.counts))
    return seen
