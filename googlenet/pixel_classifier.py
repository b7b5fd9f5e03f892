"""Networks with all that belongs to them in one module, for export: crops in, averaged probabilities out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from googlenet.fusion import fold_batch_norm
from googlenet.predictor import Replica


class PixelClassifier(nn.Module):
    """The mean of the replicas' softmax outputs on the same crops, preprocessing included.

    Input (N, 3, crop_px, crop_px) uint8 RGB; output (N, C) float32.
    """

    def __init__(self, replicas: Sequence[Replica]) -> None:
        super().__init__()
        self._preprocessings = [replica.preprocessing for replica in replicas]
        self.networks = nn.ModuleList(fold_batch_norm(replica.model) for replica in replicas)
        self.eval()

    def forward(self, images: UInt8[Tensor, "n 3 h w"]) -> Float32[Tensor, "n c"]:
        """(N, 3, crop_px, crop_px) to (N, C)."""
        outputs = [
            network(prepare(images)).logits.softmax(dim=1)
            for prepare, network in zip(self._preprocessings, self.networks, strict=True)
        ]
        return torch.stack(outputs).mean(dim=0)
