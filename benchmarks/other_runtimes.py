"""The network in other runtimes, for comparison: ONNX Runtime and OpenVINO, on one core, in fp32."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from googlenet import GoogLeNet
from googlenet.network.model import fold_batch_norm

Values = npt.NDArray[np.float32]
# Names for tables, and the packages that they need.
PACKAGES = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}
OPSET = 18


class _Logits(nn.Module):
    def __init__(self, network: GoogLeNet) -> None:
        super().__init__()
        self.network = fold_batch_norm(network)

    def forward(self, crops: Tensor) -> Tensor:
        logits: Tensor = self.network(crops).logits
        return logits


def installed() -> list[str]:
    """Return the runtimes that are installed; print those that are not."""
    missing = [name for name, package in PACKAGES.items() if find_spec(package) is None]
    for name in missing:
        print(f"{name} is left out: pip install -c constraints.txt -e '.[bench]'", flush=True)
    return [name for name in PACKAGES if name not in missing]


def write_onnx(network: GoogLeNet, crop_px: int, path: Path) -> None:
    """Write a network as ONNX, for batches of any size."""
    crops = torch.zeros(2, 3, crop_px, crop_px)
    names = {"input_names": ["crops"], "output_names": ["logits"]}
    shapes = {"crops": {0: torch.export.Dim("batch")}}
    torch.onnx.export(
        _Logits(network).eval(), (crops,), str(path), dynamo=True, dynamic_shapes=shapes, opset_version=OPSET,
        external_data=False, verbose=False, **names,
    )  # fmt: skip


def load(runtime: str, path: Path) -> Callable[[Values], Values]:
    """Return the network in a file of ONNX as a function of (N, 3, H, W) float32; it returns (N, C) logits."""
    return {"ONNX Runtime": _onnx_runtime, "OpenVINO": _openvino}[runtime](path)


def _onnx_runtime(path: Path) -> Callable[[Values], Values]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def logits(crops: Values) -> Values:
        [result] = session.run(None, {"crops": crops})
        return np.asarray(result)

    return logits


def _openvino(path: Path) -> Callable[[Values], Values]:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    network = openvino.Core().compile_model(str(path), "CPU", settings)

    def logits(crops: Values) -> Values:
        return np.asarray(network(crops)[0])

    return logits
