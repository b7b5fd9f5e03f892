"""Named recipes: the paper's, and five that depart from it."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pipelines.errors import UserError, did_you_mean
from pipelines.run.places import local_path
from pipelines.run.recipe import DISTIL, Recipe
from pipelines.run.recipe_json import recipe_from_dict


def paper() -> Recipe:
    """The paper's recipe, followed literally.

    Source: sections 5 to 7; batch size, base rate and weight decay from the solver of Caffe's GoogLeNet.
    Departures: biases are decayed and learn at the rate of weights (Caffe: no decay, twice the rate); channels are BGR
    as in Caffe (the paper: RGB), which makes no difference to randomly initialised weights; the seventh replica is as
    wide as the others and samples like them, since the paper specifies neither the width of its wider model nor the
    sampling ranges of the others (--wide-replica-width, --areas).
    Command: train_ensemble.py --recipe paper --data IMAGENET --run-dir RUN
    Cost: 250 epochs of ImageNet for each of seven replicas; never run here.
    Expected: 10.07 % top-5 error with 1 model and 1 crop, 6.67 % with 7 models and 144 crops (table 3).
    """
    return Recipe()


def demo() -> Recipe:
    """A narrow network on the embedded digits, to run the whole pipeline on two cores.

    Source: none; tuned on some seeds of the embedded set, to make a visible number of errors, and on whether replicas
    begin to learn early: the first steps have large gradients, which are clipped.
    Command: make demo
    Cost: some minutes on two cores (docs/results/demo.md).
    Expected: 14 to 21 % top-1 error of one model with one crop, 7 to 16 % of seven models with 144 crops (five seeds).
    """
    return Recipe(
        name="demo",
        data="embedded",
        crop_px=56,
        variant="bn",
        width=0.25,
        dropout=0.0,
        aux_dropout=0.0,
        initialisation="he",
        preprocessing="scratch",
        areas=((0.35, 0.85),),
        area_sampling="torchvision",
        aspect=(0.9, 1.1),
        photometric=None,
        lighting_sigma=0.0,
        batch_size=64,
        epochs=12,
        dead_head_epochs=5,
        learning_rate=0.1,
        schedule="cosine",
        warmup_epochs=1.5,
        weight_decay=1e-3,
        decay_biases=False,
        label_smoothing=0.1,
        max_gradient_norm=2.0,
        polyak_epochs=2,
    )


def modern() -> Recipe:
    """No batch normalisation and a more recent schedule; a published recipe with 72 % top-1 accuracy (one crop).

    Source: MindCV's configuration of its GoogLeNet. Departures: its convolutions have no biases and its fourth pool is
    2x2; its cosine ends at 1e-4 after 200 epochs, ours at zero after the last; we evaluate averaged weights.
    Command: train_ensemble.py --recipe modern --data IMAGENET --run-dir RUN
    Cost: 300 epochs of ImageNet for each of seven replicas; never run here.
    Expected: 27-28 % top-1 and 9.1 % top-5 error of one model with one crop, as published there.
    """
    return Recipe(
        name="modern",
        lrn="none",
        aux_heads=False,
        dropout=0.2,
        initialisation="he",
        preprocessing="scratch",
        interpolations=("bilinear",),
        area_sampling="torchvision",
        photometric=None,
        lighting_sigma=0.0,
        epochs=300,
        batch_size=256,
        schedule="cosine",
        warmup_epochs=2,
        weight_decay=4e-5,
        decay_biases=False,
        label_smoothing=0.1,
        polyak_epochs=1,
    )


def finetune() -> Recipe:
    """Published weights, fine-tuned on your own photographs.

    Source: none; untuned.
    Command: train_ensemble.py --recipe finetune --init-weights bvlc --data PHOTOS --run-dir RUN
    Cost: 39 minutes to train seven replicas on 1,100 photographs and two cores, and about an hour to evaluate 341 in
    fp32, which --precision auto chose there; half an hour for 372 in bf16 (docs/results/photographs.md).
    Expected: 84.9 to 88.4 % accuracy on 372 photographs of clothing, 10 classes, one crop
    (docs/results/photographs.md).
    """
    return Recipe(
        name="finetune",
        aux_heads=False,
        areas=((0.25, 1.0),),
        area_sampling="torchvision",
        photometric=(0.8, 1.2),
        epochs=5,
        learning_rate=0.003,
        schedule="cosine",
        warmup_epochs=0.5,
        decay_biases=False,
        polyak_epochs=1,
    )


def imagenette() -> Recipe:
    """A small network from scratch on some thousands of photographs: Imagenette, or your own.

    Source: none; chosen by short runs on a fifth of Imagenette's training photographs, which were held out. Most of
    the settings tried differ by no more than noise (docs/log.md).
    Command: train_ensemble.py --recipe imagenette --data torchvision:Imagenette --run-dir RUN
    Cost: on two cores of an AMD EPYC with AVX-512, at most 46 minutes to train seven replicas on its 9,469 training
    photographs, and 22 to evaluate the 3,925 others, beside other work; with AVX2, two and a half hours and 34 minutes,
    by the estimate. The photographs were squared: others have up to three times as many different views
    (docs/results/photographs.md).
    Expected: 20.8 % top-1 error of one model with one crop on that fifth, after training on the others (one replica);
    18.9 and 19.0 % on the 3,925 validation photographs, after training on all others (two runs, means of seven).
    """
    return Recipe(
        name="imagenette",
        crop_px=84,
        variant="bn",
        width=0.5,
        dropout=0.2,
        aux_heads=False,
        initialisation="he",
        preprocessing="scratch",
        areas=((0.35, 1.0),),
        alternate_mirror=True,
        photometric=None,
        lighting_sigma=0.0,
        batch_size=32,
        epochs=16,
        learning_rate=0.05,
        schedule="cosine",
        warmup_epochs=1,
        weight_decay=5e-4,
        decay_biases=False,
        label_smoothing=0.1,
        polyak_epochs=1,
    )


def distil(taught: Recipe | None = None) -> Recipe:
    """One network that learns the averaged answers of a finished ensemble, its teacher.

    Source: Hinton et al. 2015; temperature and weight of the labels untuned. All other settings are those of the
    teacher's replicas, ``taught``: a replica that is trained as long, from the same weights, differs in the loss alone.
    Command: train_ensemble.py --recipe distil --teacher RUN --run-dir RUN
    Cost: the teacher's answers to the training images (7 x 10 forward passes each), and one replica's training.
    Expected: on the demo, 14.8 % top-1 error with 144 crops, like one of the teacher's replicas (15.0 %); the teacher
    has 11.9 %, and a network trained from labels for the time of student and answers 5.8 %
    (docs/results/experiments.md).
    """
    return replace(taught or Recipe(), name=DISTIL, replicas=1, wide_replica_width=None)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "paper": paper,
    "demo": demo,
    "modern": modern,
    "finetune": finetune,
    "imagenette": imagenette,
    DISTIL: distil,
}


def load_recipe(name: str) -> Recipe:
    """Return a recipe by name, or from a JSON file as ``--print-recipe`` prints it, or a run's ``run.json``.

    Raises:
        UserError: there is no such recipe or file, a field is unknown, or a value is out of range.
    """
    if name in RECIPES:
        return RECIPES[name]()
    path = local_path(name)
    if not path.is_file():
        if path.suffix == ".json":
            raise UserError(f"there is no recipe file {path}: correct the path, or choose {', '.join(RECIPES)}")
        choices = f"choose {', '.join(RECIPES)}, or give a recipe's JSON file"
        raise UserError(f"unknown recipe {name!r}{did_you_mean(name, RECIPES)}: {choices}")
    try:
        values = json.loads(path.read_bytes(), object_pairs_hook=_without_repeats)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    try:
        return recipe_from_dict(values.get("recipe", values) if isinstance(values, dict) else values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, of which JSON itself would silently keep the last of two values with one name."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise UserError(f"{next(name for name in names if names.count(name) > 1)} is there twice; remove one of them")
    return values
