"""Answers of published weights in bf16 against fp32: the same first answers, the same sets of five, ties at rank five.

python -m benchmarks.bf16_answers --photos clothing/test --weights bvlc_googlenet.npz
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.measure import print_circumstances
from benchmarks.photographs import photographs
from googlenet.evaluation.crops import policy_scales_px
from googlenet.evaluation.ensemble import TOP
from googlenet.evaluation.predictor import Predictor
from googlenet.images.scaled_image import ScaledImage
from googlenet.network.arithmetic import FP32, Arithmetic
from googlenet.network.weight_files import load_weights
from pipelines.evaluation.arithmetic_trial import agreement_percent

CROP_PX = 224
POLICIES = (1, 10)


@dataclass(frozen=True)
class Arguments:
    """Compare answers in bf16 with those in fp32."""

    photos: str
    """Folder of photographs."""
    weights: str
    """File of weights, such as bvlc_googlenet.npz."""
    images: int = 72
    """Photographs, spread evenly over the folder."""


def main(arguments: Arguments) -> None:
    """Print the agreement in percent, by number of crops."""
    every = photographs(arguments.photos, sum(path.is_file() for path in Path(arguments.photos).rglob("*")))
    places = np.linspace(0, len(every) - 1, arguments.images).round().astype(int)
    scaled = [ScaledImage.decode(every[place], policy_scales_px(POLICIES[-1], CROP_PX)) for place in places]
    replica = load_weights(Path(arguments.weights))
    exact, reduced = (
        np.array([predictor.predict(image).probabilities[0] for image in scaled])
        for predictor in (Predictor([replica], CROP_PX, POLICIES, "cpu", a) for a in (FP32, Arithmetic("bf16")))
    )
    print("| crops | same first answer | same five answers | ties of the fifth and sixth | largest difference |")
    for number, crops in enumerate(POLICIES):
        ours, fp32 = reduced[:, number], exact[:, number]
        ranked = -np.sort(-ours, axis=1)
        ties = 100 * (ranked[:, TOP - 1] == ranked[:, TOP]).mean()
        top1, top5 = (agreement_percent(fp32, ours, answers) for answers in (1, TOP))
        print(f"| {crops} | {top1:.1f} % | {top5:.1f} % | {ties:.1f} % | {np.abs(ours - fp32).max():.3f} |")
    print_circumstances(1)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
