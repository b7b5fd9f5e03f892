"""Numeric precision and compilation of a network."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import torch
    from torch import nn

Precision = Literal["fp32", "tf32", "bf16"]
# Compute capability of the first GPUs that multiply in TF32, Ampere's.
TF32_CAPABILITY = (8, 0)
# Compilers that torch.compile looks for, after the one that a variable names: for a CPU, and for Triton.
VARIABLES = {"cpu": "CXX", "gpu": "CC"}
COMPILERS = {"cpu": ("g++", "clang++", "c++"), "gpu": ("gcc", "clang")}

# The switches are those of the whole process: another thread must not turn them while a network is at work.
_switched = threading.RLock()


@dataclass(frozen=True)
class Arithmetic:
    """Precision and compilation of a network, in training or inference.

    Attributes:
        precision: of activations, and in inference of weights. Classifiers and weights in training are always fp32,
            softmax and averages in inference float64. ``tf32`` is fp32 whose products a GPU rounds to 10 bits.
        compiled: by ``torch.compile``; not bit-identical, but with the same figures, and faster once compiled.
    """

    precision: Precision = "fp32"
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.precision}, {'compiled' if self.compiled else 'not compiled'}"

    @property
    def dtype(self) -> "torch.dtype":
        """The torch dtype of weights and activations."""
        import torch

        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @contextmanager
    def in_force(self, device: str) -> Iterator[None]:
        """Let this process multiply fp32 numbers on a GPU in TF32, or exactly, during the block.

        PyTorch's default is TF32 in convolutions. Other threads wait until the block ends. Without effect on a CPU.
        """
        if device == "cpu":
            yield
            return
        import torch

        cudnn: Any = torch.backends.cudnn  # whose types lack the switch of convolutions
        switches = torch.backends.cuda.matmul, cudnn.conv
        with _switched:
            before = [switch.fp32_precision for switch in switches]
            try:
                for switch in switches:
                    switch.fp32_precision = "tf32" if self.precision == "tf32" else "ieee"
                yield
            finally:
                for switch, precision in zip(switches, before, strict=True):
                    switch.fp32_precision = precision

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Arithmetic":
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: the precision is none of these.
            KeyError: a value is missing.
        """
        if values["precision"] not in get_args(Precision):
            raise ValueError(f"precision must be {', '.join(get_args(Precision))}, got {values['precision']!r}")
        return cls(values["precision"], values["compiled"])


# The reference that every other arithmetic is compared with.
FP32 = Arithmetic()


def profits_from_bf16(device: str) -> bool:
    """Return whether the device multiplies bfloat16 in hardware: AMX or AVX-512 BF16, or a GPU from Ampere on."""
    import torch

    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def profits_from(precision: Precision, device: str) -> bool:
    """Return whether the device is faster in ``precision`` than in exact fp32."""
    import torch

    if precision == "bf16":
        return profits_from_bf16(device)
    return precision == "tf32" and device != "cpu" and torch.cuda.get_device_capability() >= TF32_CAPABILITY


def can_compile(device: str) -> bool:
    """Return whether ``torch.compile`` finds a compiler: of C++ for a CPU, of C for a GPU, where Triton needs one."""
    kind = _kind(device)
    return any(name and shutil.which(name) for name in (os.environ.get(VARIABLES[kind], ""), *COMPILERS[kind]))


def compiler_name(device: str) -> str:
    """Return the kind of compiler that ``torch.compile`` needs, for messages."""
    return {"cpu": "C++ compiler", "gpu": "C compiler"}[_kind(device)]


def _kind(device: str) -> str:
    return "cpu" if device == "cpu" else "gpu"


def compiler_failure(device: str) -> str:
    """Compile a small layer, forwards and backwards; return the compiler's error in one line, empty if it works."""
    import torch

    layer = torch.nn.Linear(1, 1, device=device)
    try:
        compile_network(layer)(torch.ones(1, 1, device=device)).sum().backward()
    except Exception as error:  # noqa: BLE001  # a compiler and its tools may raise anything
        return first_line(error)
    return ""


def is_of_compiler(error: Exception) -> bool:
    """Return whether PyTorch's compiler, or a tool that it calls, raised ``error``."""
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message; its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def compile_network(network: "nn.Module") -> Callable[..., Any]:
    """Compile ``network`` for one input shape. Networks of one architecture share the compiled code."""
    import torch

    compiled: Callable[..., Any] = torch.compile(network, dynamic=False)
    return compiled
