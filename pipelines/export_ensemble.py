"""Export of a finished run to files that others can use without it.

    python pipelines/export_ensemble.py --run-dir RUN --output FOLDER
    python pipelines/export_ensemble.py --run-dir RUN --output hf://OWNER/REPO

The folder, or the repository on Hugging Face, holds the weights of all replicas, the recipe, report.json, a model card
and, if the run has them, calibration.json and budget.json; ``googlenet.Ensemble.from_pretrained`` loads it. ``--format
onnx`` and ``--format pt2`` write one graph instead.
"""

if __name__ == "__main__":  # by a Python that may lack packages, or an installed project
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from pipelines.job.interpreter import check_interpreter

    check_interpreter()

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.errors import UserError
from pipelines.export.ensemble_folder import export_ensemble
from pipelines.export.graphs import export_graph, graph_file
from pipelines.job.command_line import parse, run_command
from pipelines.job.console import say
from pipelines.job.run_option import run_at

GRAPH_SUFFIXES = (".onnx", ".pt2")


@dataclass(frozen=True)
class Arguments:
    """Export a finished run to files that others can use without it."""

    run_dir: str
    """Run directory: a path, or a URI of an object store."""
    output: str
    """New folder, or hf://OWNER/REPO; with --format onnx or pt2, the file to write."""
    format: Literal["safetensors", "onnx", "pt2"] = "safetensors"
    """'safetensors' (weights, recipe, report, model card), or one graph: 'onnx', or 'pt2' of torch.export."""
    replica: int | None = None
    """Export only this replica as a graph; the default is the mean of all finished replicas."""


def _main() -> None:
    arguments = parse(Arguments)
    run = run_at(arguments.run_dir)
    if arguments.format != "safetensors":
        say(export_graph(run, graph_file(arguments.output), arguments.format, arguments.replica))
        return
    output = Path(arguments.output)
    if output.suffix in GRAPH_SUFFIXES:
        raise UserError(f"--output {output}: add --format {output.suffix[1:]}, or name a folder")
    if output.suffix == ".safetensors":
        raise UserError(f"--output {output}: name a folder, which will hold a file of each replica")
    if arguments.replica is not None:
        raise UserError(
            f"--replica is for graphs; the weights of replica {arguments.replica} are a file of their own: "
            f"{run.below(f'replicas/{arguments.replica}/weights.safetensors')}"
        )
    say(export_ensemble(run, arguments.output))


if __name__ == "__main__":
    run_command(_main)
