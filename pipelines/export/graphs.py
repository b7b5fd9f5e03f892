"""An ensemble, or one replica, as a graph: crops in, averaged probabilities out, preprocessing included.

ONNX for other runtimes, or PyTorch's own format (torch.export), which needs no code of this project and no pickle.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from googlenet.evaluation.crops import scales_px
from googlenet.evaluation.kept_calibration import KeptCalibration
from pipelines.errors import UserError
from pipelines.job.console import count, say, size
from pipelines.run.directory import CALIBRATION, ReplicaFiles, check_folder, finished_replicas, read_recipe
from pipelines.run.places import local_path, without_file_scheme
from pipelines.run.storage import Storage
from pipelines.run.weights import read_replica

if TYPE_CHECKING:
    from torch import Tensor, nn

GraphFormat = Literal["onnx", "pt2"]
# How to make the input, for programs and people who have only the file. Keys are part of its interface.
INPUT_METADATA = {
    "input_layout": "NCHW",
    "input_channels": "RGB",
    "input_values": "uint8, 0 to 255",
    "preprocessing": "in the model: give it pixels as they are",
}
# Name under which torch.export keeps the metadata in its file.
METADATA_FILE = "metadata.json"
# Supported by runtimes since 2023; the network needs none of its antialiased resizing or group normalisation.
OPSET = 18
# Protobuf's limit, without what the operations and names take beside the weights.
MOST_ONNX_BYTES = 2**31 - 2**24
NEEDED_FOR_ONNX = ("onnx", "onnxscript")


def graph_file(output: str) -> Path:
    """Return the file at ``output``, a path as a user gives it.

    Raises:
        UserError: it is a URI, of which a path would be a folder called s3: on this machine.
    """
    if "://" in without_file_scheme(output) or output.startswith(("hf:", "HF:")):
        raise UserError(f"--output of a graph must be a file on this machine, got {output}: copy it from here")
    return local_path(output)


def export_graph(run: Storage, output: Path, kind: GraphFormat, replica: int | None = None) -> str:
    """Write ``output``; return its description in one line.

    The network takes (N, 3, crop_px, crop_px) uint8 RGB crops and returns (N, C) probabilities; the file's metadata
    list the classes, say how crops are made, and have the temperature that the run keeps for one crop. ONNX has a
    second output: the probabilities with that temperature.

    Args:
        run: a run of train_ensemble.py.
        output: file to write, with ``kind`` as its suffix.
        kind: format of the file.
        replica: export only this replica; the default is the mean of all finished replicas.

    Raises:
        UserError: the suffix is another, packages or the replica are missing, its weights are damaged, or too large.
    """
    if output.suffix != f".{kind}":
        raise UserError(f"--output must end with .{kind}, got {output}")
    check_folder(Storage.at(str(output.parent)))
    if output.exists():
        raise UserError(f"{output} exists; choose another --output, or remove it")
    missing = [name for name in NEEDED_FOR_ONNX if find_spec(name) is None]
    if kind == "onnx" and missing:
        raise UserError(f"missing packages: {', '.join(missing)}; run pip install -c constraints.txt -e '.[onnx]'")
    names = [ReplicaFiles(number).weights for number in _chosen(run, replica)]
    say(f"exporting {run} ...")
    import torch

    from googlenet.evaluation.ensemble import CalibratedClassifier, PixelClassifier

    files, stored = zip(*(read_replica(run, name) for name in names), strict=True)
    crop_px, classes = stored[0].extra["crop_px"], stored[0].extra["classes"]
    num_bytes = sum(map(len, files))
    if kind == "onnx" and num_bytes > MOST_ONNX_BYTES:
        raise UserError(
            f"the weights of {count(len(files), 'replica')} have {size(num_bytes)}, and an ONNX file holds at most "
            "2 GiB: export single replicas with --replica, or choose --format pt2"
        )
    network = PixelClassifier([one.build() for one in stored])
    # Two crops: a graph exported with one crop would accept only one.
    crops = torch.zeros(2, 3, crop_px, crop_px, dtype=torch.uint8)
    temperature = _temperature(run, files)
    about = {"classes": json.dumps(classes), "temperature": str(temperature)}
    metadata = {**about, **_how_to_crop(crop_px), **INPUT_METADATA}
    if kind == "onnx":
        data = _onnx(CalibratedClassifier(network, temperature), crops, metadata)
    else:
        data = _pt2(network, crops, metadata)
    Storage.at(str(output.parent)).write(output.name, data)
    replicas, outputs = count(len(stored), "replica"), count(len(classes), "class", "classes")
    return f"{output}: {replicas}, {outputs}, crops of {crop_px} px"


def _temperature(run: Storage, files: Sequence[bytes]) -> float:
    """Return the temperature for one crop of the replicas in ``files``; 1 if the run keeps none for them."""
    if not run.exists(CALIBRATION):
        return 1.0
    kept = run.read_as(CALIBRATION, KeptCalibration.from_dict)
    digests = tuple(hashlib.sha256(data).hexdigest() for data in files)
    known = kept.for_weights(digests)
    return (known.temperature(len(digests), 1) if known else None) or 1.0


def _onnx(network: "nn.Module", crops: "Tensor", metadata: dict[str, str]) -> bytes:
    import torch

    program = torch.onnx.export(
        network,
        (crops,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["crops"],
        output_names=["probabilities", "calibrated_probabilities"],
        dynamic_shapes=_any_number_of_crops(),
        verbose=False,
    )
    assert program is not None  # noqa: S101  # dynamo=True always returns one
    model = program.model_proto
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    data: bytes = model.SerializeToString()
    return data


def _pt2(network: "nn.Module", crops: "Tensor", metadata: dict[str, str]) -> bytes:
    import torch

    exported = torch.export.export(network, (crops,), dynamic_shapes=_any_number_of_crops())
    exported.example_inputs = None  # PyTorch would pickle them into the file
    file = io.BytesIO()
    torch.export.save(exported, file, extra_files={METADATA_FILE: json.dumps(metadata)})
    return file.getvalue()


def _any_number_of_crops() -> tuple[dict[int, Any]]:
    import torch

    return ({0: torch.export.Dim("crops_in_batch")},)


def _how_to_crop(crop_px: int) -> dict[str, str]:
    """Return the sizes of the evaluation with one crop, and what is done with them."""
    shorter_side_px = scales_px(crop_px)[0]
    return {
        "crop_px": str(crop_px),
        "shorter_side_px": str(shorter_side_px),
        "resize": (
            f"turn the image upright, scale its shorter side to {shorter_side_px} px (bilinear with antialiasing), "
            f"take the {crop_px} x {crop_px} px in the middle"
        ),
    }


def _chosen(run: Storage, replica: int | None) -> list[int]:
    finished = finished_replicas(run, read_recipe(run).replicas)
    if not finished:
        raise UserError(f"no replica of {run} is finished; run train_ensemble.py on it again")
    if replica is not None and replica not in finished:
        raise UserError(f"replica {replica} is not finished; finished replicas: {', '.join(map(str, finished))}")
    return finished if replica is None else [replica]
