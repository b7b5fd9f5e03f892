"""The notes (MLflow's description) of runs, in Markdown: what came out, where to look, how to repeat it."""

from typing import Any

from pipelines.report.text import headline, headline_markdown

# MLflow cuts a tag after so many characters.
MAX_CHARACTERS = 8000
PICTURES = (
    ("error_by_models.png", "Error by the number of models"),
    ("learning_curves.png", "Learning curves"),
    ("views.png", "Error by scale and kind of view"),
)


def parent_note(
    report: dict[str, Any], cost: dict[str, Any], jobs: list[dict[str, Any]], parent: str, pictures: set[str]
) -> str:
    """Of a finished run: the table, pictures, and how to start the same run again.

    Pictures are the run's own artifacts, in the words by which MLflow's server hands them out.
    """
    latest = jobs[-1] if jobs else {}
    images = [
        f"![{title}](get-artifact?path=report%2F{name}&run_uuid={parent})"
        for name, title in PICTURES
        if name in pictures
    ]
    commit = latest.get("commit", "")
    sections = [
        headline(report),
        headline_markdown(report, cost),
        "Everything else: `report/index.html` under Artifacts.",
        *images,
        f"The same run again: `python pipelines/train_ensemble.py --recipe runs:/{parent} --run-dir NEW`"
        + (f" at commit `{commit}`." if commit else "."),
    ]
    return _fitting(sections)


def _fitting(sections: list[str]) -> str:
    """As many sections as a note may hold, first things first; they are cut nowhere in between."""
    text = ""
    for section in filter(None, sections):
        longer = f"{text}\n\n{section}" if text else section
        if len(longer) <= MAX_CHARACTERS:
            text = longer
    return text


def child_note(replica: int, seed: int, metrics: list[dict[str, Any]], failure: str | None) -> str:
    """Of a replica: what tells it from the others, how far it came, and what went wrong."""
    lines = [f"Replica {replica}: what it saw was drawn from sampling seed {seed}."]
    if metrics:
        last = metrics[-1]
        lines.append(
            f"After {last['epoch']} epochs its top-1 error with one centre crop is {last['val_top1_error']:.2f} % with "
            f"the averaged weights, {last['val_top1_error_raw_weights']:.2f} % with the raw ones."
        )
        hosts = sorted({line["host"] for line in metrics})
        lines.append(f"Trained on {', '.join(hosts)}.")
    if failure:
        lines.append(f"```\n{failure[-MAX_CHARACTERS // 2 :].rstrip()}\n```")
    return "\n\n".join(lines)
