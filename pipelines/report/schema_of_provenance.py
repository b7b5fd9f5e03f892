"""Fields of report.json about where a report comes from."""

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict


class Run(TypedDict):
    """Content of run.json."""

    id: Annotated[str, Field(description="Identity of the run directory.")]
    recipe: NotRequired[Annotated[dict[str, Any], Field(description="Recipe of a training run.")]]
    given_recipe: NotRequired[
        Annotated[str, Field(description="What --recipe named; absent for runs of earlier versions.")]
    ]
    evaluation: NotRequired[
        Annotated[dict[str, Any], Field(description="Settings of an evaluation of weights from other sources.")]
    ]
    images: NotRequired[Annotated[str, Field(description="Digest of the images that a training run has prepared.")]]


class Node(TypedDict):
    """A node of the cluster."""

    cpus: Annotated[float, Field(description="Its CPUs.")]
    gpus: Annotated[float, Field(description="Its GPUs.")]
    accelerator: Annotated[str, Field(description="Name of its GPUs; empty if it is unknown.")]


class EvaluatedBy(TypedDict):
    """A start of evaluate_ensemble.py."""

    started: Annotated[str, Field(description="Time of the start, as in ISO 8601.")]
    command: Annotated[str, Field(description="Command, with its options.")]
    commit: Annotated[str, Field(description="Commit of the code; empty if it is unknown.")]
    code_digest: Annotated[str, Field(description="SHA-256 over the files of the code.")]
    versions: Annotated[dict[str, str], Field(description="Versions of Python and of packages, by name.")]
    processor: Annotated[str, Field(description="Name of the processor; empty if it is unknown.")]
    nodes: Annotated[list[Node], Field(description="Nodes of the cluster.")]
    weights: NotRequired[
        Annotated[
            list[str],
            Field(
                description="File or name of each replica's weights, if --weights named them, in the replicas' order."
            ),
        ]
    ]
