"""Claims of cluster/README.md: its commands start nodes, and its costs follow from its speeds and prices."""

import re

from googlenet.evaluation.crops import CROP_POLICIES, view_groups, views_of_all
from pipelines.job.console import size
from pipelines.run.predictions import bytes_per_image
from pipelines.run.view_probabilities import kept_bytes
from pipelines.training.time_estimate import WEIGHTS_VALIDATED
from tests.pages import PAGES, section

IMAGES, IMAGES_AN_EPOCH, NODES, HEAD = 50_000, 1.28e6, 7, 0.20
CROPS_PER_SECOND = 1_500  # of six loader processes
SPEEDS = {"L4": (1_500, 6_000), "T4": (350, 1_200)}  # images in training, views in prediction
PRICES = {"g6.2xlarge": ("L4", 0.40), "g2-standard-8": ("L4", 0.35), "NC8as_T4_v3": ("T4", 0.30)}
EPOCHS = (250, 300)


def validation_seconds(gpu: str) -> float:
    return max(WEIGHTS_VALIDATED * IMAGES / SPEEDS[gpu][1], IMAGES / CROPS_PER_SECOND)


def test_a_job_that_is_submitted_with_images_in_a_bucket_makes_nodes_join() -> None:
    blocks = "".join(block for page in PAGES for block in re.findall(r"```(?:sh)?\n(.*?)```", page.read_text(), re.S))
    commands = [line for line in blocks.replace("\\\n", "").splitlines() if "cluster/submit.py" in line]
    in_bucket = [command for command in commands if "s3://" in command]
    assert len(in_bucket) > 1
    assert [command for command in in_bucket if "--parallel-replicas" not in command] == []


def test_the_costs_follow_from_the_speeds_and_prices() -> None:
    text = " ".join(section("cluster/README.md", "Time and money").split())
    for gpu, (trained, predicted) in SPEEDS.items():
        assert re.search(rf"{gpu}\b.{{,80}} {trained:,} .{{,30}}{predicted:,}", text)
        assert re.search(rf"in {validation_seconds(gpu):.0f} s (beside|on) an? {gpu}", text)
    assert f"make {CROPS_PER_SECOND:,} crops a second" in text
    assert f"{IMAGES_AN_EPOCH / 1e6:.2f} million images an epoch; {IMAGES:,} x 144 x 7 views" in text
    assert f"{HEAD:.2f} $/h for the head" in text
    for node, (gpu, price) in PRICES.items():
        trained, predicted = SPEEDS[gpu]
        assert re.search(rf"{price:.2f} (\$/h )?\({node}\)", text)
        epoch = IMAGES_AN_EPOCH / trained + validation_seconds(gpu)
        evaluation = IMAGES * 144 * 7 / (NODES * predicted)
        seconds, hourly = [*(epochs * epoch for epochs in EPOCHS), evaluation], NODES * price + HEAD
        times = [*(f"{time / 3600:.0f} h" for time in seconds[:2]), f"{evaluation / 60:.0f} min"]
        costs = [f"{time / 3600 * hourly:.0f} $" for time in seconds]
        cells = " | ".join(f"{time}, {cost}" for time, cost in zip(times, costs, strict=True))
        assert f"| {NODES} x {node} | {cells} |" in text
    saved = EPOCHS[0] * 4 / 5 * validation_seconds("L4") / 3600
    assert f"`--validate-every-epochs 5` takes off {saved:.1f} hours" in text


def test_the_size_of_predictions_is_what_the_evaluation_writes() -> None:
    text = " ".join(section("cluster/README.md", "Time and money").split())
    views = views_of_all(CROP_POLICIES, 224)
    predictions = IMAGES * bytes_per_image(7, len(CROP_POLICIES), 1000, len(views), len(view_groups(views)))
    kept = kept_bytes(7, CROP_POLICIES, 1000, IMAGES)
    assert (size(predictions), size(kept)) == ("5.85 GB", "1.07 GB")
    assert f"Predictions take {predictions / 1e9:.1f} GB, and single views {kept / 1e9:.1f} GB." in text
