"""Time and money of a run: what its jobs have used, what the rest will take, and limits on both.

Limits are those of the run, not of one start: what earlier jobs on the run directory used counts, also those that were
killed. So a job that is restarted again and again cannot exceed them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.errors import UserError
from pipelines.job.console import duration, two_digits
from pipelines.job.log import LoggedJob

SECONDS_PER_HOUR = 3600.0
SHOWN_IN_TENTHS = 0.1


@dataclass(frozen=True)
class Usage:
    """Time of a job or of several, summed over its nodes as well, and their cost; 0 without a price."""

    seconds: float = 0.0
    node_seconds: float = 0.0
    cost: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.seconds + other.seconds, self.node_seconds + other.node_seconds, self.cost + other.cost)

    def __str__(self) -> str:
        hours = self.node_seconds / SECONDS_PER_HOUR
        nodes = f", {hours:,.1f} node-hours" if hours >= SHOWN_IN_TENTHS else f", {two_digits(hours)} node-hours"
        return f"{duration(self.seconds)}{nodes}{f', cost {self.cost:,.2f}' if self.cost else ''}"

    def to_dict(self) -> dict[str, float]:
        """Return it for the job's log."""
        return {"seconds": round(self.seconds), "node_seconds": round(self.node_seconds), "cost": round(self.cost, 4)}


@dataclass(frozen=True)
class Limits:
    """Price of a node, and limits on the time and the money of a run."""

    price_per_node_hour: float | None = None
    """Price of one node for one hour, in any currency; the plan and the job then report their cost. There is no
    built-in price."""
    max_hours: float | None = None
    """Limit on the total hours of all jobs of the run; at the limit, training stops with checkpoints, and the finished
    replicas are evaluated."""
    max_cost: float | None = None
    """Limit on the total cost of all jobs of the run; needs --price-per-node-hour."""

    def __post_init__(self) -> None:
        for name in ("price_per_node_hour", "max_hours", "max_cost"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"--{name.replace('_', '-')} must be positive, got {value:g}")
        if self.max_cost is not None and self.price_per_node_hour is None:
            raise UserError("--max-cost needs the price of a node: add --price-per-node-hour")

    @property
    def are_given(self) -> bool:
        """Whether the user asked for a limit, or for the cost."""
        return (self.price_per_node_hour, self.max_hours, self.max_cost) != (None, None, None)

    def usage(self, seconds: float, nodes: float) -> Usage:
        """Return what ``seconds`` on ``nodes`` nodes use."""
        node_seconds = seconds * nodes
        return Usage(seconds, node_seconds, node_seconds / SECONDS_PER_HOUR * (self.price_per_node_hour or 0.0))

    def usage_of(self, jobs: Iterable[LoggedJob]) -> Usage:
        """Return what jobs used, from their logs; those without a price cost the present one."""
        return sum((self._usage_of(job) for job in jobs), Usage())

    def _usage_of(self, job: LoggedJob) -> Usage:
        if "usage" not in job:  # of a start that was killed in its first minute, or of a version that kept no usage
            seconds = sum(job["stage_seconds"].values())
            return self.usage(seconds, sum(node["cpus"] > 0 for node in job["nodes"]))
        kept = Usage(**job["usage"])
        return kept if kept.cost else Usage(kept.seconds, kept.node_seconds, self.usage(kept.node_seconds, 1).cost)

    def reached_by(self, usage: Usage) -> str:
        """Return the limit that ``usage`` reaches, as the user gave it; empty if it reaches none."""
        if self.max_hours is not None and usage.seconds >= self.max_hours * SECONDS_PER_HOUR:
            return self.names[0]
        if self.max_cost is not None and usage.cost >= self.max_cost:
            return self.names[-1]
        return ""

    @property
    def names(self) -> list[str]:
        """The limits as the user gave them: that on hours first."""
        given = {"--max-hours": self.max_hours, "--max-cost": self.max_cost}
        return [f"{option} {value:g}" for option, value in given.items() if value is not None]

    def line(self, estimate: Usage) -> str:
        """Return what the rest of the job takes and costs, in a line of the plan."""
        if price := self.price_per_node_hour:
            return f"cost: about {estimate}, at {price:g} per node-hour"
        # Who limits the hours alone has not asked for the cost.
        unknown = "" if self.are_given else "; price unknown: add --price-per-node-hour PRICE"
        return f"cost: about {estimate}{unknown}"


def comparison(estimate: Usage, used: Usage) -> str:
    """Return the estimate of a job beside what it used, in one line."""
    more = round(100 * (used.seconds / estimate.seconds - 1)) if estimate.seconds else 0
    beside = f"{abs(more)} % {'more' if more > 0 else 'less'} time than estimated" if more else "as estimated"
    return f"this job used {used}; the estimate was {estimate}: {beside}"
