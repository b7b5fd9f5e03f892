"""Advice for replicas that do not learn: nothing that the recipe already does, nothing that its weights rule out."""

import re
from dataclasses import replace

from pipelines.run.named_recipes import demo, finetune, modern, paper
from pipelines.training.advice import advice_for


def test_the_papers_recipe_is_advised_all_that_it_lacks() -> None:
    advice = advice_for(paper())
    assert advice.dead == (
        "try a lower or a higher --learning-rate (now 0.01), --warmup-epochs 1, --max-gradient-norm 5, "
        "--initialisation he or --variant bn"
    )
    assert advice.not_finite.startswith("try a lower --learning-rate (now 0.01), --warmup-epochs 1, ")
    assert "--training-precision fp32" in advice.not_finite


def test_given_weights_rule_out_another_initialisation_or_variant() -> None:
    advice = advice_for(replace(finetune(), init_weights="bvlc_googlenet.npz"))
    assert advice.dead == "try a lower or a higher --learning-rate (now 0.003) or --max-gradient-norm 5"
    assert "--initialisation" not in advice.not_finite
    assert "--variant" not in advice.not_finite


def test_what_a_recipe_does_already_is_not_advised() -> None:
    assert "--warmup-epochs" not in advice_for(demo()).dead
    assert "--variant" not in advice_for(demo()).dead
    assert "--initialisation" not in advice_for(modern()).dead
    assert "--variant bn" in advice_for(modern()).dead
    assert "--variant bn" not in advice_for(replace(modern(), workers_per_replica=2)).dead
    done = replace(demo(), max_gradient_norm=1.0, training_precision="fp32")
    assert advice_for(done).dead == "try a lower or a higher --learning-rate (now 0.1)"
    assert advice_for(done).not_finite == "try a lower --learning-rate (now 0.1)"


def test_a_recipe_with_advised_options_is_no_refused_one() -> None:
    recipe = replace(paper(), initialisation="lsuv")
    advised = re.split(", | or ", advice_for(recipe).dead)[2:]  # after a lower, or a higher, rate
    assert advised[-2:] == ["--initialisation he", "--variant bn --initialisation he"]
    for options in advised:
        named = re.findall(r"--(\S+) (\S+)", options)
        values = {name.replace("-", "_"): float(value) if value.isdigit() else value for name, value in named}
        replace(recipe, **values)
