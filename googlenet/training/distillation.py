"""Distillation: a network is trained on the answers of other networks, with labels mixed in.

Source: Hinton et al. 2015, "Distilling the knowledge in a neural network". The teacher's probabilities p and the
student's logits z are both softened by a temperature T, to p^(1/T) and exp(z/T), each scaled to add up to one. The loss
is T^2 times the Kullback-Leibler divergence from one to the other: with T^2, its gradient keeps its size as T grows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from googlenet.network.model import Outputs
from googlenet.shapes import Float, Float32

# Before the name of a classifier: its divergence from the teacher, beside its loss on the labels.
TEACHER = "teacher_"


@dataclass(frozen=True)
class Distillation:
    """How much of the loss comes from the teacher.

    Attributes:
        temperature: temperature that softens the answers of both.
        label_weight: share of the labels in the loss; the teacher has the rest.
    """

    temperature: float
    label_weight: float

    def divergences(
        self, outputs: Outputs, probabilities: Float32[Tensor, "n c"], num_images: int
    ) -> dict[str, Float[Tensor, ""]]:
        """Return each classifier's divergence from the teacher, keyed by ``TEACHER`` and its name in :class:`Outputs`.

        It is summed over the images and divided by ``num_images``, the batch size; without the factor T^2.
        """
        wanted = softened(probabilities, self.temperature)
        return {
            f"{TEACHER}{name}": functional.kl_div(
                (logits.float() / self.temperature).log_softmax(dim=1), wanted, reduction="sum"
            )
            / num_images
            for name, logits in outputs._asdict().items()
            if logits is not None
        }

    def mixed(self, losses: Mapping[str, Float[Tensor, ""]]) -> dict[str, Float[Tensor, ""]]:
        """Return the loss of each classifier, from its loss on the labels and its divergence from the teacher."""
        labels, teacher = self.label_weight, (1 - self.label_weight) * self.temperature**2
        return {
            name: labels * loss + teacher * losses[f"{TEACHER}{name}"]
            for name, loss in losses.items()
            if not name.startswith(TEACHER)
        }


def softened(probabilities: Float32[Tensor, "n c"], temperature: float) -> Float32[Tensor, "n c"]:
    """Return p^(1/T), scaled to add up to one."""
    least = torch.finfo(probabilities.dtype).tiny
    return (probabilities.clamp_min(least).log() / temperature).softmax(dim=1)
