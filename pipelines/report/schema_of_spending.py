"""The fields of report.json about what an error costs in forward passes, and those of cost.json."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from pipelines.report.fields import CropPolicy, Interval, JudgedOn

Passes = Annotated[
    float,
    Field(
        description="Mean forward passes computed per image: equal views of an image once. Reports of earlier versions "
        "count these each time."
    ),
]
Way = Literal["replicas", "views", "replicas_and_views", "chosen_views", "cascade", "soup", "student"]
SoupName = Annotated[
    Literal["uniform", "greedy"],
    Field(description="Average of all replicas' weights, or of those with which the error falls on other images."),
]
BudgetName = Literal["fast", "balanced"]
Top1Interval = Annotated[Interval, Field(description="Its 95 % interval over images, in percent: low, high.")]


class SpendingRow(TypedDict):
    """A way to spend forward passes, and its error."""

    way: Annotated[
        Way,
        Field(
            description="More replicas with the fewest crops; more crops with one replica; more of both; the views "
            "that help most, with all replicas; a cascade that adds replicas and views until it is sure enough; the "
            "average of the replicas' weights; in the report of a student, itself, beside the ways of its teacher."
        ),
    ]
    models: NotRequired[Annotated[int, Field(description="Replicas averaged; absent for a cascade.")]]
    crops: NotRequired[Annotated[int, Field(description="Views averaged; absent for a cascade.")]]
    threshold: NotRequired[
        Annotated[float, Field(description="Probability above which a cascade's answer is sure enough.")]
    ]
    budget: NotRequired[Annotated[BudgetName, Field(description="Budget of a cascade, instead of a threshold.")]]
    soup: NotRequired[SoupName]
    passes: Passes
    pass_cost: NotRequired[
        Annotated[
            float,
            Field(
                description="Multiplications of a pass of the student's teacher, over those of a pass of the student. "
                "Each pass of the teacher counts as so many; absent for 1."
            ),
        ]
    ]
    top1_error: Annotated[float, Field(description="Top-1 error, in percent.")]
    top1_ci95: Top1Interval
    images: Annotated[int, Field(description="Images it was judged on.")]
    efficient: Annotated[
        bool,
        Field(
            description="Whether every way with as few passes has a higher error, as a difference from all passes on "
            "the same images."
        ),
    ]


class BudgetRow(TypedDict):
    """A budget of the cascade, judged with thresholds, views and temperatures fitted on other images."""

    budget: Annotated[BudgetName, Field(description="Name of the budget.")]
    within_points: Annotated[
        float, Field(description="Largest share of answers that this budget may lose, in percentage points: see lost.")
    ]
    promised_points: NotRequired[
        Annotated[
            float,
            Field(
                description="The share that the images on which its threshold was chosen can promise: within_points, "
                "or 100 / (images + 1) if that is more. Absent with thresholds of earlier versions, without a promise."
            ),
        ]
    ]
    judged_on: JudgedOn
    images: Annotated[int, Field(description="Number of these images.")]
    passes: Passes
    all_passes: Annotated[float, Field(description="Mean forward passes computed per image without stopping.")]
    saving: Annotated[float, Field(description="Forward passes saved of these, in percent.")]
    lost: NotRequired[
        Annotated[
            float,
            Field(
                description="Images that all passes answer rightly and the budget wrongly, in percent. Absent in "
                "reports of earlier versions."
            ),
        ]
    ]
    top1_error: Annotated[float, Field(description="Top-1 error, in percent.")]
    top1_ci95: Top1Interval
    top1_difference: Annotated[float, Field(description="Its error minus that of all passes, in percentage points.")]
    top1_difference_ci95: Annotated[
        Interval, Field(description="95 % interval of that difference, paired by image: low, high.")
    ]


class SoupRow(CropPolicy):
    """A soup, the average of replicas' weights, at the cost of one network."""

    soup: SoupName
    members: Annotated[
        list[str], Field(description="Replicas that it averages; of a greedy soup, those chosen on all images.")
    ]
    judged_on: NotRequired[JudgedOn]
    images: Annotated[int, Field(description="Images it was judged on.")]
    top1_error: Annotated[float, Field(description="Top-1 error, in percent.")]
    top1_ci95: Top1Interval
    top5_error: Annotated[float, Field(description="Top-5 error, in percent.")]
    top1_difference: Annotated[
        float, Field(description="Top-1 error minus the mean error of one replica, in percentage points.")
    ]
    top1_difference_ci95: Annotated[
        Interval, Field(description="95 % interval of that difference, paired by image: low, high.")
    ]


class MeasuredCost(TypedDict):
    """Content of cost.json: what the predictions took on the machines that made them."""

    predictor_seconds: float
    forward_passes: int
    passes_per_second: float | None
    seconds_per_pass: float
    arithmetic: str
    shards_by_host: dict[str, int]
