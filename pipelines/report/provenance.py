"""Provenance of a report: date, recipe, weights, command, processor and commit of an evaluation and of its training."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipelines.job.circumstances import Start
from pipelines.job.console import count
from pipelines.job.log import read_jobs
from pipelines.report.schema_of_provenance import EvaluatedBy
from pipelines.run.dataset import read_manifest
from pipelines.run.directory import QUARANTINE, RUN, read_run
from pipelines.run.storage import Storage

COMMIT_CHARACTERS = 12


def evaluated_by(start: Start, weights: list[str] | None = None) -> EvaluatedBy:
    """Return what report.json keeps of a start of the evaluation, and of the weights that were named to it."""
    kept: EvaluatedBy = {
        "started": start["started"],
        "command": start["command"],
        "commit": start["commit"],
        "code_digest": start["code_digest"],
        "versions": start["versions"],
        "processor": start["processor"],
        # Without their hosts, whose names help nobody who reads the report elsewhere.
        "nodes": [
            {"cpus": float(node["cpus"]), "gpus": float(node["gpus"]), "accelerator": node["accelerator"]}
            for node in start["nodes"]
        ],
    }
    return {**kept, "weights": weights} if weights else kept


def provenance(
    run: Storage, trained: Storage | None, arithmetic: str, evaluation: EvaluatedBy | None
) -> dict[str, str]:
    """Return where a report comes from, by name, as far as it is known.

    Args:
        run: where the images and the predictions are.
        trained: the training run of the replicas, if that is another.
        arithmetic: that of the predictions.
        evaluation: start of the evaluation; None if a training job has made it, or if it is unknown.
    """
    source = trained or run
    jobs, recipe = read_jobs(source), read_run(source).get("recipe", {}) if source.exists(RUN) else {}
    newest: Mapping[str, Any] = jobs[-1] if jobs else {}
    is_later = trained is not None or evaluation is not None
    own: Mapping[str, Any] = (evaluation or {}) if is_later else newest
    facts = {
        "images": _images(run),
        "date": _date(own),
        "recipe": str(recipe.get("name", "")),
        "weights": ", ".join(own.get("weights", ())),
        "command": _command(own),
        "processor": processor_of(own),
        "arithmetic": f"{arithmetic} (evaluation)",
        "commit": _commit(own),
    }
    if is_later:
        facts |= {
            "training date": _date(newest),
            "training command": _command(newest),
            "training processor": processor_of(newest),
            "training commit": _commit(newest),
        }
    return {name: value for name, value in facts.items() if value}


def _images(run: Storage) -> str:
    """Return how many images there are, and how many files were left out."""
    manifest = read_manifest(run)
    listed = f"; {QUARANTINE} lists those that were left out" if manifest.quarantined else ""
    return f"{manifest.summary()}{listed}"


def _date(start: Mapping[str, Any]) -> str:
    return str(start.get("started", "")).replace("T", " ").replace("+00:00", " UTC")


def _command(start: Mapping[str, Any]) -> str:
    return f"python {start['command']}" if start.get("command") else ""


def _commit(start: Mapping[str, Any]) -> str:
    commit = str(start.get("commit", ""))
    return commit[:COMMIT_CHARACTERS] + ("-dirty" if commit.endswith("-dirty") else "")


def processor_of(start: Mapping[str, Any]) -> str:
    """Return the processor's name where it is known, and the CPUs and GPUs of the nodes."""
    nodes = Counter(node_text(node) for node in start.get("nodes", []))
    machines = [text if number == 1 else f"{number:,} nodes of {text}" for text, number in nodes.items()]
    return ", ".join(filter(None, [str(start.get("processor", "")), *machines]))


def node_text(node: Mapping[str, Any]) -> str:
    """Return the CPUs of a node, and its GPUs if it has any."""
    parts = [count(int(node["cpus"]), "CPU")]
    if node["gpus"]:
        parts.append(f"{count(int(node['gpus']), 'GPU')} {node['accelerator']}".rstrip())
    return " and ".join(parts)
