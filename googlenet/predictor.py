"""K replicas x V views of one image in one call: probabilities averaged over the views of each crop policy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from googlenet.crops import CROP_POLICIES, distinct_views, scales_px
from googlenet.fusion import fold_batch_norm
from googlenet.images import Pixels, decode_rgb
from googlenet.model import GoogLeNet
from googlenet.preprocessing import Preprocessing
from googlenet.views import cut_views, scale_image

# Larger batches leave the processor's caches: 36 views were faster than 144 at 224 px.
VIEWS_PER_BATCH = 36


@dataclass(frozen=True)
class Replica:
    """A network with the preprocessing that its weights were trained with."""

    model: GoogLeNet
    preprocessing: Preprocessing


@dataclass(frozen=True)
class ScaledImage:
    """An image on its way to the model: its size in pixels, and its versions at the four scales."""

    width: int
    height: int
    scaled: tuple[Pixels, ...]

    @classmethod
    def decode(cls, data: bytes, crop_px: int) -> "ScaledImage":
        """Decode and scale; once for all views and replicas."""
        image = decode_rgb(data)
        height, width = image.shape[:2]
        return cls(width, height, tuple(scale_image(image, scales_px(crop_px))))


@dataclass(frozen=True)
class Prediction:
    """Of one image, by K replicas with P crop policies, for C classes.

    Attributes:
        probabilities: (K, P, C) float32, averaged over the views of each policy.
        num_views: (K, P) how many views with finite outputs went into each average, duplicates counted.
    """

    probabilities: npt.NDArray[np.float32]
    num_views: npt.NDArray[np.int32]


def _for_inference(model: GoogLeNet, device: str) -> GoogLeNet:
    folded: GoogLeNet = fold_batch_norm(model).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return folded


class Predictor:
    """Averages softmax outputs over views, replica by replica.

    An image is a computation of its own: what else is predicted, in which order and by how many workers, leaves no
    trace in its probabilities.
    """

    def __init__(
        self, replicas: Sequence[Replica], crop_px: int, policies: Sequence[int] = CROP_POLICIES, device: str = "cpu"
    ) -> None:
        self.crop_px, self.policies, self.device = crop_px, tuple(policies), device
        self.replicas = [Replica(_for_inference(r.model, device), r.preprocessing) for r in replicas]

    def predict(self, image: ScaledImage) -> Prediction:
        """Predict one image."""
        distinct = distinct_views(image.width, image.height, self.crop_px, self.policies)
        views = cut_views(image.scaled, distinct.boxes, self.crop_px).to(self.device)
        weights = torch.from_numpy(distinct.weights)
        counts = np.array(distinct.counts)
        averaged, num_views = [], []
        for replica in self.replicas:
            probabilities = self._probabilities(replica, views)
            averaged.append(weights @ probabilities)
            # Counted on what was computed: a window stands for as many views as its share says.
            seen = torch.isfinite(probabilities).all(dim=1).double()
            num_views.append(np.rint((weights @ seen).numpy() * counts))
        return Prediction(torch.stack(averaged).float().numpy(), np.array(num_views, dtype=np.int32))

    @torch.inference_mode()
    def _probabilities(self, replica: Replica, views: Tensor) -> Tensor:
        """(V, C) float64 on the CPU."""
        batches = torch.split(views, VIEWS_PER_BATCH)
        logits = [replica.model(replica.preprocessing(batch)).logits for batch in batches]
        return torch.cat(logits).double().softmax(dim=1).cpu()
