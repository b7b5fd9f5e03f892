"""Types of single fields of report.json that several of its tables share, with their descriptions."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

Interval = Annotated[list[float], Field(min_length=2, max_length=2)]
Models = Annotated[int, Field(description="Number of replicas averaged.")]

# Fields that a row has for the top-1 and for the top-5 error.
MeanError = Annotated[float, Field(description="Mean error over all ensembles of this size, in percent.")]
MeanErrorInterval = Annotated[Interval, Field(description="95 % interval of the mean error, in percent: low, high.")]
ErrorRange = Annotated[
    Interval, Field(description="Error of the best and of the worst ensemble of this size: low, high.")
]
ErrorDeviation = Annotated[
    float,
    Field(description="Standard deviation (N - 1) of the error over the ensembles of this size, in points; 0 for one."),
]
BaseDifference = Annotated[
    float, Field(description="Mean error minus that of one model with the fewest crops, in points.")
]
BaseDifferenceInterval = Annotated[
    Interval, Field(description="95 % interval of that difference, paired by image, in percentage points: low, high.")
]
# Not in reports of earlier versions.
WiderInterval = Annotated[
    Interval,
    Field(
        description="The same, with images and replicas resampled; absent with fewer than three replicas, or for "
        "weights from other sources."
    ),
]
ComputedPasses = Annotated[
    float,
    Field(
        description="Mean number of forward passes computed per image: equal views, such as two thirds of the 144 of "
        "a square image, are computed once. Absent in reports of earlier versions."
    ),
]
ScoreInterval = Annotated[Interval, Field(description="Its 95 % interval: low, high.")]
JudgedOn = Annotated[
    Literal["other_folds", "other_images"],
    Field(description="Images on which the judged values were fitted: the other folds, or those of the training run."),
]
ReplicaError = Annotated[float, Field(description="Error of this replica alone, in percent.")]
AveragingError = Annotated[float, Field(description="Error with the mean over views, then over models.")]
MaximumError = Annotated[float, Field(description="Error with the maximum over views, then the mean over models.")]
PoolingDifference = Annotated[float, Field(description="Error with the maximum minus error with the mean, in points.")]
PoolingDifferenceInterval = BaseDifferenceInterval
ChosenOn = Annotated[
    Literal["training_validation_images", "evaluated_images"],
    Field(description="Images on which its error was the lowest, with one crop or with the fewest."),
]


class CropPolicy(TypedDict):
    """A crop policy."""

    crops: Annotated[int, Field(description="Views averaged of each image, duplicates counted.")]
    policy: Annotated[
        str,
        Field(
            description="Crop policy: 1, 10 or 144; scales in pixels with 36 views at each, such as 256+320; or "
            "best:24: and a mask of the 144 views in hexadecimal digits."
        ),
    ]


# "class" is a keyword of Python, hence this form.
ClassName = TypedDict("ClassName", {"class": Annotated[str, Field(description="Name of the class.")]})
