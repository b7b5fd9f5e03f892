"""Tests of limits on time and money: what counts, when they are reached, and what the user reads."""

import pytest
from ray.exceptions import RaySystemError

from pipelines.errors import UserError
from pipelines.job.limits import Limits, Usage, comparison
from pipelines.job.log import JobLog, read_jobs
from pipelines.job.meter import Meter
from pipelines.run.storage import Storage

HOUR = 3600.0


class Cluster:
    """A clock, a number of nodes, and whether it answers, set by hand."""

    def __init__(self) -> None:
        self.seconds, self.number, self.answers = 0.0, 1, True

    def clock(self) -> float:
        return self.seconds

    def nodes(self) -> int:
        if not self.answers:
            raise RaySystemError("the head does not answer")
        return self.number


def metered(cluster: Cluster, limits: Limits, jobs: list[dict[str, object]] | None = None) -> Meter:
    return Meter(limits, jobs or [], cluster.nodes, cluster.clock)


def test_every_node_costs_its_price_while_it_is_there() -> None:
    cluster = Cluster()
    meter = metered(cluster, Limits(price_per_node_hour=0.5))
    cluster.seconds = HOUR
    assert meter.used() == Usage(HOUR, HOUR, 0.5)
    cluster.seconds, cluster.number = 2 * HOUR, 7
    assert meter.used() == Usage(2 * HOUR, 8 * HOUR, 4.0)
    assert str(meter.used()) == "2:00:00, 8.0 node-hours, cost 4.00"


def test_a_cluster_that_does_not_answer_costs_what_it_did() -> None:
    cluster = Cluster()
    meter = metered(cluster, Limits(price_per_node_hour=0.5))
    assert meter.used() == Usage()
    cluster.seconds = HOUR
    cluster.answers = False
    assert meter.used() == Usage(HOUR, HOUR, 0.5)


def test_a_mistake_in_counting_nodes_is_not_taken_for_a_cluster_that_does_not_answer() -> None:
    def nodes() -> int:
        raise KeyError("Resources")

    with pytest.raises(KeyError):
        Meter(Limits(max_hours=1), [], nodes).used()


@pytest.mark.parametrize(
    ("limits", "hours", "name"),
    [(Limits(max_hours=3), 3, "--max-hours 3"), (Limits(0.5, max_cost=2), 2, "--max-cost 2")],
)
def test_training_stops_at_a_limit_and_early_enough_for_the_evaluation(limits: Limits, hours: int, name: str) -> None:
    cluster = Cluster()
    cluster.number = 2
    meter = metered(cluster, limits)
    assert "about 5:00:00, 10.0 node-hours" in meter.expect(5 * HOUR, evaluation_seconds=0.5 * HOUR, nodes=2)
    cluster.seconds = (hours - 0.6) * HOUR
    assert meter.why_stop() == ""
    cluster.seconds = (hours - 0.5) * HOUR
    assert meter.why_stop() == f"the run has reached {name}"
    message = meter.how_to_go_on(finished=2, replicas=7)
    assert message.startswith(
        f"stopped at {name}, less 30:00 for the evaluation: the jobs of this run have used {hours - 1}:30:00, "
    )
    assert "2 of 7 replicas finished, the others keep their checkpoints." in message
    assert message.endswith(f"run the same command with a larger {name.split(maxsplit=1)[0]}.")


def test_a_limit_counts_all_jobs_of_the_run_and_a_larger_one_lets_it_go_on() -> None:
    cluster = Cluster()
    killed = {"usage": {"seconds": 2 * HOUR, "node_seconds": 4 * HOUR, "cost": 0.0}}
    of_earlier_version = {"stage_seconds": {"train": HOUR}, "nodes": [{"cpus": 0}, {"cpus": 8}, {"cpus": 8}]}
    jobs = [killed, of_earlier_version]
    assert metered(cluster, Limits(max_hours=3), jobs).why_stop() == "the run has reached --max-hours 3"
    assert metered(cluster, Limits(max_hours=3.1), jobs).why_stop() == ""
    # Six node-hours that were used without a price cost the present one.
    assert metered(cluster, Limits(0.5, max_cost=3), jobs).why_stop() == "the run has reached --max-cost 3"
    assert metered(cluster, Limits(0.5, max_cost=3.1), jobs).why_stop() == ""
    assert metered(cluster, Limits(), jobs).why_stop() == ""


def test_the_same_limit_ends_the_next_job_at_once_although_its_reserve_is_not_known_yet() -> None:
    cluster = Cluster()
    usage = {"seconds": 2.5 * HOUR, "node_seconds": 2.5 * HOUR, "cost": 0.0}
    stopped = {"usage": usage, "limit": "--max-hours 3", "limit_nodes": cluster.number}
    assert metered(cluster, Limits(max_hours=3), [stopped]).why_stop() == "the run has reached --max-hours 3"
    assert metered(cluster, Limits(max_hours=4), [stopped]).why_stop() == ""
    assert metered(cluster, Limits(), [stopped]).why_stop() == ""
    assert metered(cluster, Limits(max_hours=3), [stopped, {**stopped, "limit": ""}]).why_stop() != ""  # five hours
    cluster.number += 1  # on more nodes the evaluation may take less
    assert metered(cluster, Limits(max_hours=3), [stopped]).why_stop() == ""
    cluster.number -= 1
    went_on = {"usage": {"seconds": 0.1 * HOUR, "node_seconds": 0.0, "cost": 0.0}}
    assert metered(cluster, Limits(max_hours=3), [stopped, went_on]).why_stop() == ""


def test_the_log_of_a_job_keeps_what_it_used_and_its_last_line_compares_that_with_the_estimate(
    ray_cluster: str, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    run, cluster = Storage.at(str(tmp_path)), Cluster()
    run.write_json("run.json", {})
    meter = metered(cluster, Limits(price_per_node_hour=2))
    cluster.seconds = 0.1 * HOUR  # of which the trial of the estimate took a part
    assert meter.expect(0.9 * HOUR, 0, nodes=1) == "cost: about 54:00, 0.9 node-hours, cost 1.80, at 2 per node-hour"
    with meter.kept_in(JobLog(run)):
        cluster.seconds = 1.2 * HOUR
    [job] = read_jobs(run)
    assert "limit" not in job
    assert job["usage"] == {"seconds": 4320, "node_seconds": 4320, "cost": 2.4}
    assert job["estimate"] == {"seconds": 3600, "node_seconds": 3600, "cost": 2.0}
    assert capsys.readouterr().out.splitlines()[-1] == (
        "this job used 1:12:00, 1.2 node-hours, cost 2.40; the estimate was 1:00:00, 1.0 node-hours, cost 2.00: "
        "20 % more time than estimated"
    )


def test_an_estimate_may_also_be_too_high_or_right() -> None:
    estimate = Usage(HOUR, HOUR)
    assert comparison(estimate, Usage(HOUR / 2, HOUR / 2)).endswith(": 50 % less time than estimated")
    assert comparison(estimate, estimate).endswith(": as estimated")


def test_the_plan_names_the_option_if_no_price_is_known() -> None:
    assert Limits().line(Usage(HOUR, 7 * HOUR)) == (
        "cost: about 1:00:00, 7.0 node-hours; price unknown: add --price-per-node-hour PRICE"
    )
    assert Limits(max_hours=9).line(Usage(HOUR, 7 * HOUR)) == "cost: about 1:00:00, 7.0 node-hours"
    limits = Limits(price_per_node_hour=0.4)
    assert limits.line(limits.usage(HOUR, 7)) == "cost: about 1:00:00, 7.0 node-hours, cost 2.80, at 0.4 per node-hour"


def test_limits_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match="--max-cost needs the price of a node: add --price-per-node-hour"):
        Limits(max_cost=5)
    with pytest.raises(UserError, match="--max-hours must be positive, got 0"):
        Limits(max_hours=0)
