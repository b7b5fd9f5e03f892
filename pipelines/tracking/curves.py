"""Metrics of replicas and nodes by epoch, step and time, sent to MLflow without duplicate or missing steps.

The store is asked once how far it got, and what it has is not sent again. Each value has the time of its measurement,
so a database recognises a value that arrived although its sender got no answer and sends it again.
"""

from collections.abc import Callable, Iterable
from typing import Any

from pipelines.run.directory import ReplicaFiles
from pipelines.run.json_lines import Line, lines_after, read_metrics, read_steps
from pipelines.run.storage import Storage
from pipelines.tracking.runs import MlflowRuns

METRICS_PER_CALL = 1000
ALARM_TAG = "alarm"
# The history of these metrics shows how far the store got.
EPOCH_METRIC, STEP_METRIC, SYSTEM_METRIC = "learning_rate", "step/learning_rate", "system_memory_usage_percentage"
NOT_METRICS = ("epoch", "step", "time_ms")
MILLISECONDS = 1000
SIGNIFICANT_DIGITS = 6


class Curves:
    """Sends the metrics of one run directory to its MLflow runs."""

    def __init__(self, runs: MlflowRuns, run: Storage) -> None:
        self._runs, self._run = runs, run
        self._sent: dict[tuple[str, str], int] = {}

    def send_replica(self, replica: int) -> None:
        """Send the new metrics of a replica: epochs, steps, load of its nodes."""
        child = self._runs.child(replica)
        self._send_epochs(child, replica)
        self._send(child, STEP_METRIC, "step", lambda after: read_steps(self._run, replica, after))
        self.send_system(child, ReplicaFiles(replica).system)

    def send_system(self, mlflow_run: str, folder: str) -> None:
        """Send the new load of the nodes whose samples are in ``folder``."""
        for host in self._run.names(folder):

            def seconds_after(after: int, host: str = host) -> list[Line]:
                lines = lines_after(self._run, f"{folder}/{host}", "time_ms", (after + 1) * MILLISECONDS - 1)
                return [{**line, "step": line["time_ms"] // MILLISECONDS} for line in lines]

            self._send(mlflow_run, f"system/{host}/{SYSTEM_METRIC}", "step", seconds_after)

    def _send_epochs(self, child: str, replica: int) -> None:
        lines = read_metrics(self._run, replica)
        self._send(child, EPOCH_METRIC, "epoch", lambda after: [line for line in lines if line["epoch"] > after])
        if lines:
            self._set_alarm(child, lines[-1].get("alarm"))

    def _send(self, mlflow_run: str, telltale: str, axis: str, read_after: Callable[[int], list[Line]]) -> None:
        """Send the lines that the store does not have; ``axis`` is the metrics' step."""
        known = (mlflow_run, telltale)
        if known not in self._sent:
            history = self._runs.client.get_metric_history(mlflow_run, telltale)
            self._sent[known] = max((metric.step for metric in history), default=0)
        news = read_after(self._sent[known])
        for lines in _batches(news):
            self._runs.client.log_batch(mlflow_run, [metric for line in lines for metric in _metrics(line, axis)])
            # A line counts as sent once all of it has arrived.
            self._sent[known] = lines[-1][axis]

    def _set_alarm(self, child: str, alarm: str | None) -> None:
        if alarm:
            self._runs.set_tags(child, {ALARM_TAG: alarm})
        else:
            self._runs.delete_tag(child, ALARM_TAG)


def _metrics(line: Line, axis: str) -> list[Any]:
    """Return the numbers of a line; the telltale is among them, and a batch arrives completely or not at all."""
    from mlflow.entities import Metric

    numbers = {name: value for name, value in line.items() if name not in NOT_METRICS and not isinstance(value, str)}
    return [Metric(name, _rounded(value), line["time_ms"], line[axis]) for name, value in numbers.items()]


def _rounded(value: float) -> float:
    """Round to digits that people read; the run directory has all of them."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _batches(lines: list[Line]) -> Iterable[list[Line]]:
    """Return batches of complete lines, each as large as a call may be."""
    per_call = max(1, METRICS_PER_CALL // max((len(line) for line in lines), default=1))
    return (lines[first : first + per_call] for first in range(0, len(lines), per_call))
