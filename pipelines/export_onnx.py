"""Export of the ensemble, or of one replica, to ONNX: crops in, averaged probabilities out, preprocessing included.

    python pipelines/export_onnx.py --run-dir RUN --output ensemble.onnx

Needs the extra ``onnx``: pip install -c constraints.txt -e '.[onnx]'
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from googlenet.evaluation.crops import scales_px
from pipelines.errors import UserError
from pipelines.job.command_line import parse, run_command
from pipelines.job.console import count, say
from pipelines.run.directory import ReplicaFiles, check_folder, finished_replicas, read_recipe
from pipelines.run.storage import Storage
from pipelines.run.weights import read_replica

# How to make the input, for programs and people who have only the file. Keys are part of its interface.
INPUT_METADATA = {
    "input_layout": "NCHW",
    "input_channels": "RGB",
    "input_values": "uint8, 0 to 255",
    "preprocessing": "in the model: give it pixels as they are",
}
# Supported by runtimes since 2023; the network needs none of its antialiased resizing or group normalisation.
OPSET = 18
NEEDED = ("onnx", "onnxscript")


@dataclass(frozen=True)
class Arguments:
    """Export a finished run to ONNX."""

    run_dir: str
    """Run directory: a path, or a URI of an object store."""
    output: str
    """File to write, .onnx."""
    replica: int | None = None
    """Export only this replica; the default is the mean of all finished replicas."""


def export(run: Storage, output: Path, replica: int | None = None) -> str:
    """Write ``output``; return its description in one line.

    The network takes (N, 3, crop_px, crop_px) uint8 RGB crops and returns (N, C) probabilities; the file's metadata
    list the classes, and say how crops are made.

    Raises:
        UserError: the packages or the replica are missing, or its weights are damaged.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(f"missing packages: {', '.join(missing)}; run pip install -c constraints.txt -e '.[onnx]'")
    import torch

    from googlenet.evaluation.ensemble import PixelClassifier

    names = [ReplicaFiles(number).weights for number in _chosen(run, replica)]
    stored = [read_replica(run, name)[1] for name in names]
    crop_px, classes = stored[0].extra["crop_px"], stored[0].extra["classes"]
    crops = torch.zeros(2, 3, crop_px, crop_px, dtype=torch.uint8)
    program = torch.onnx.export(
        PixelClassifier([network.build() for network in stored]),
        (crops,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["crops"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("crops_in_batch")},),
        verbose=False,
    )
    assert program is not None  # noqa: S101  # dynamo=True always returns one
    model = program.model_proto
    for key, value in {"classes": json.dumps(classes), **_how_to_crop(crop_px), **INPUT_METADATA}.items():
        model.metadata_props.add(key=key, value=value)
    Storage.at(str(output.parent)).write(output.name, model.SerializeToString())
    replicas, outputs = count(len(stored), "replica"), count(len(classes), "class", "classes")
    return f"{output}: {replicas}, {outputs}, crops of {crop_px} px"


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


def _main() -> None:
    arguments = parse(Arguments)
    output = Path(arguments.output)
    if output.suffix != ".onnx":
        raise UserError(f"--output must end with .onnx, got {arguments.output}")
    check_folder(Storage.at(str(output.parent)))
    say(export(Storage.at(arguments.run_dir), output, arguments.replica))


if __name__ == "__main__":
    run_command(_main)
