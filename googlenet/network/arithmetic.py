"""In which arithmetic a network computes: precision, and whether it is compiled."""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import nn

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Arithmetic:
    """How a network computes, in training or inference.

    Attributes:
        precision: of activations, in inference of weights too; softmax and averages are float64 always, weights in
            training fp32.
        compiled: by ``torch.compile``; other bits, the same figures, fewer seconds once it is compiled.
    """

    precision: Precision = "fp32"
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.precision}, {'compiled' if self.compiled else 'not compiled'}"

    @property
    def dtype(self) -> "torch.dtype":
        """Of weights and activations."""
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16}[self.precision]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Arithmetic":
        """Inverse of :meth:`to_dict`."""
        return cls(values["precision"], values["compiled"])


# The reference that every other arithmetic is compared with.
FP32 = Arithmetic()


def profits_from_bf16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware: AMX or AVX-512 BF16, or a GPU from Ampere on."""
    import torch

    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def can_compile(device: str) -> bool:
    """Whether there is what ``torch.compile`` needs: a C++ compiler on a CPU; for GPUs it brings its own."""
    compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    return device != "cpu" or any(name and shutil.which(name) for name in compilers)


def compile_network(network: "nn.Module") -> Callable[..., Any]:
    """``network`` compiled for one shape of input. Networks of one architecture share what was compiled."""
    import torch

    compiled: Callable[..., Any] = torch.compile(network, dynamic=False)
    return compiled
