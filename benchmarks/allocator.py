"""Crops per second on one core with and without keeping freed memory, by batch size; paper variant, eager.

python -m benchmarks.allocator
"""

from dataclasses import dataclass

import torch
import tyro

from benchmarks.measure import Contender, Round, print_circumstances, print_rates, race
from googlenet import GoogLeNet
from pipelines.job.worker_process import KEEP_FREED_MEMORY


@dataclass(frozen=True)
class Arguments:
    """Measure the effect of the C allocator's settings."""

    rounds: int = 7
    """Rounds of one batch each."""
    crop_px: int = 224
    """Side of the crops."""
    batches: tuple[int, ...] = (12, 48, 144)
    """Crops in a batch."""


def _forward(batch: int, crop_px: int, dtype: torch.dtype) -> Round:
    torch.set_num_threads(1)
    network = GoogLeNet(1000, "paper", aux_heads=False).eval().to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    crops = torch.zeros(batch, 3, crop_px, crop_px, dtype=dtype).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def one_batch() -> float:
        network(crops)
        return batch

    return one_batch


def main(arguments: Arguments) -> None:
    """Print crops per second and their ratios, one table per precision and batch size."""
    for dtype in (torch.float32, torch.bfloat16):
        for batch in arguments.batches:
            name = f"{str(dtype).removeprefix('torch.')}, batches of {batch}"
            contenders = [
                Contender(f"{name}, default settings", _forward, (batch, arguments.crop_px, dtype)),
                Contender(f"{name}, freed memory kept", _forward, (batch, arguments.crop_px, dtype), KEEP_FREED_MEMORY),
            ]
            print_rates(race(contenders, arguments.rounds), "crops/s of a core", [contenders[0].name])
    print_circumstances(arguments.rounds)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
