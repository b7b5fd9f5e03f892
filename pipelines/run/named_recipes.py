"""The recipes that have a name: the paper's, and what is worth departing from it for."""

import json
from collections.abc import Callable
from pathlib import Path

from pipelines.errors import UserError
from pipelines.run.recipe import Recipe, recipe_from_dict


def paper() -> Recipe:
    """The paper to the letter.

    Source: sections 5 to 7; batch size, base rate and weight decay from the solver of Caffe's GoogLeNet.
    Departures: biases are decayed and learn at the rate of weights (Caffe: no decay, twice the rate); channels are BGR
    as in Caffe (the paper: RGB), which changes nothing for weights that start at random; the seventh replica is as
    wide as the others and samples like them, since the paper does not say how wide its one was, nor which ranges its
    others sampled (--wide-replica-width, --areas).
    Command: train_ensemble.py --recipe paper --data IMAGENET --run-dir RUN
    Cost: 250 epochs of ImageNet for each of seven replicas; never run here.
    Expected: 10.07 % top-5 error with 1 model and 1 crop, 6.67 % with 7 models and 144 crops (table 3).
    """
    return Recipe()


def demo() -> Recipe:
    """A narrow network on the embedded digits, to see the whole pipeline on two cores.

    Source: none; tuned on the embedded set to err visibly.
    Command: make demo
    Cost: under ten minutes on two cores.
    Expected: 29 to 31 % top-1 error of one model with one crop, 17 to 23 % of seven with 144 (RESULTS.md).
    """
    return Recipe(
        name="demo",
        data="embedded",
        crop_px=84,
        variant="bn",
        width=0.25,
        dropout=0.0,
        aux_dropout=0.0,
        initialisation="he",
        preprocessing="scratch",
        areas=((0.5, 1.0),),
        photometric=None,
        lighting_sigma=0.0,
        epochs=11,
        dead_head_epochs=5,
        batch_size=16,
        learning_rate=0.05,
        schedule="cosine",
        warmup_epochs=1,
        weight_decay=1e-3,
        decay_biases=False,
        polyak_epochs=2,
    )


def modern() -> Recipe:
    """Without batch normalisation, by a later schedule: the recipe that reached 72 % top-1 (one crop) elsewhere.

    Source: MindCV's configuration of its GoogLeNet. Departures: its convolutions have no biases and its fourth pool is
    2x2; its cosine ends at 1e-4 after 200 epochs, ours at zero at the end; the weights evaluated are an average here.
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
    """Published weights on one's own photographs.

    Source: none; one untuned choice.
    Command: train_ensemble.py --recipe finetune --init-weights bvlc_googlenet.npz --data PHOTOS --run-dir RUN
    Cost: 39 minutes for seven replicas on 1,100 photographs and two cores, and half an hour for 372 to evaluate.
    Expected: 84.9 to 88.4 % right on 372 photographs of clothing, 10 classes, one crop (RESULTS.md).
    """
    return Recipe(
        name="finetune",
        aux_heads=False,
        areas=((0.25, 1.0),),
        photometric=(0.8, 1.2),
        epochs=5,
        learning_rate=0.003,
        schedule="cosine",
        warmup_epochs=0.5,
        decay_biases=False,
        polyak_epochs=1,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"paper": paper, "demo": demo, "modern": modern, "finetune": finetune}


def load_recipe(name: str) -> Recipe:
    """A recipe by its name, or from the JSON file that a run printed.

    Raises:
        UserError: no such recipe or file, an unknown field, or a value out of its range.
    """
    if name in RECIPES:
        return RECIPES[name]()
    path = Path(name)
    if not path.is_file():
        raise UserError(f"no recipe {name!r}: choose {', '.join(RECIPES)}, or name a recipe's JSON file")
    try:
        return recipe_from_dict(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
