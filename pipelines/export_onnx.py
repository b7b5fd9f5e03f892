"""Export to ONNX: the earlier name of ``export_ensemble.py --format onnx``.

    python pipelines/export_onnx.py --run-dir RUN --output ensemble.onnx

Needs the extra ``onnx``: pip install -c constraints.txt -e '.[onnx]'
"""

if __name__ == "__main__":  # by a Python that may lack packages, or an installed project
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from pipelines.job.interpreter import check_interpreter

    check_interpreter()

from dataclasses import dataclass

from pipelines.export.graphs import export_graph, graph_file
from pipelines.job.command_line import parse, run_command
from pipelines.job.console import say
from pipelines.job.run_option import run_at


@dataclass(frozen=True)
class Arguments:
    """Export a finished run to ONNX, as export_ensemble.py --format onnx does."""

    run_dir: str
    """Run directory: a path, or a URI of an object store."""
    output: str
    """File to write, .onnx."""
    replica: int | None = None
    """Export only this replica; the default is the mean of all finished replicas."""


def _main() -> None:
    arguments = parse(Arguments)
    say(export_graph(run_at(arguments.run_dir), graph_file(arguments.output), "onnx", arguments.replica))


if __name__ == "__main__":
    run_command(_main)
