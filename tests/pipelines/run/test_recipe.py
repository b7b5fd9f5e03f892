"""Recipes: printed and read back, with invalid values refused."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import UserError
from pipelines.run.claims import claim
from pipelines.run.differences import differences
from pipelines.run.named_recipes import RECIPES, load_recipe
from pipelines.run.recipe import Recipe
from pipelines.run.recipe_json import VALUES_BEFORE, recipe_from_dict
from pipelines.run.storage import Storage
from pipelines.run.teacher import check_that_a_teacher_is_given


def test_a_recipe_in_the_home_folder_is_found_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.json").write_text(json.dumps(Recipe(epochs=3).to_dict()))
    assert load_recipe("~/mine.json").epochs == 3


def test_a_misspelt_recipe_is_answered_with_the_closest_name() -> None:
    for name in ("Demo", "demmo"):
        with pytest.raises(UserError, match=rf"unknown recipe '{name}' \(did you mean demo\?\): choose paper, demo,"):
            load_recipe(name)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "recipe.json"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_text(json.dumps(recipe.to_dict()), encoding=encoding)
        assert load_recipe(str(path)) == recipe
    path.write_bytes(b'{"data": "caf\xe9"}')
    with pytest.raises(UserError, match=r"recipe\.json is not JSON: .*utf-8"):
        load_recipe(str(path))


@pytest.mark.parametrize("name", RECIPES)
def test_a_value_has_one_spelling_wherever_the_recipe_comes_from(name: str) -> None:
    recipe = load_recipe(name)
    again = recipe_from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert json.dumps(again.to_dict()) == json.dumps(recipe.to_dict())


def test_whole_numbers_become_floats_where_the_field_is_one() -> None:
    recipe = Recipe(warmup_epochs=1, areas=((0.5, 1),), photometric=(1, 2), max_gradient_norm=None, policies=(1, 144))
    assert repr((recipe.warmup_epochs, recipe.areas, recipe.photometric)) == "(1.0, ((0.5, 1.0),), (1.0, 2.0))"
    assert repr((recipe.max_gradient_norm, recipe.policies, recipe.epochs)) == "(None, (1, 144), 250)"


def test_the_recipe_of_an_earlier_version_keeps_its_meaning() -> None:
    """It lacks the newest fields; one that somebody wrote in part takes the defaults, as of every field."""
    earlier = {name: value for name, value in Recipe().to_dict().items() if name not in VALUES_BEFORE}
    assert recipe_from_dict(earlier).area_sampling == "torchvision"
    assert recipe_from_dict({"epochs": 3}).area_sampling == "even"
    assert recipe_from_dict(Recipe().to_dict()).area_sampling == "even"


def test_a_run_of_an_earlier_version_stays_bound_to_its_recipe(tmp_path: Path) -> None:
    run, now = Storage.at(str(tmp_path)), load_recipe("demo").to_dict()
    earlier = {name: value for name, value in now.items() if name not in VALUES_BEFORE}
    run.write_json("run.json", {"id": "1", "recipe": earlier})
    run.write_json("dataset/manifest.json", {})
    claim(run, "recipe", now)
    with pytest.raises(UserError, match="area_sampling: was 'torchvision', is now 'even'"):
        claim(run, "recipe", {**now, "area_sampling": "even"})


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="epoch_count"):
        recipe_from_dict({"epoch_count": 3})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", "many"),
        ("epochs", 0),
        ("crop_px", 100),
        ("crop_px", 28),
        ("variant", "v3"),
        ("interpolations", ["lanczos"]),
        ("learning_rate", -1),
        ("momentum", 1.0),
        ("areas", []),
        ("max_gradient_norm", -1),
        ("wide_replica_width", 0),
        ("policies", [1, 1]),
        ("policies", ["144"]),
        ("width", 17.0),
        ("wide_replica_width", 17.0),
        ("val_percent", 100.0),
        ("min_workers_per_replica", 2),
        ("lighting_sigma", -0.1),
        ("area_sampling", "uneven"),
        ("first_crop_px", 300),
        ("first_crop_px", 20),
        ("learning_rate", math.inf),
        ("warmup_epochs", math.inf),
        ("weight_decay", math.inf),
        ("dead_head_epochs", math.inf),
        ("teacher_temperature", math.inf),
        ("lighting_sigma", math.inf),
        ("aspect", [1.0, math.inf]),
        ("photometric", [1.0, math.inf]),
        ("polyak_epochs", math.nan),
        ("polyak_epochs", -math.inf),
        ("max_gradient_norm", math.nan),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_field(field: str, value: object) -> None:
    with pytest.raises(UserError, match=field):
        recipe_from_dict({field: value})


@pytest.mark.parametrize("field", ["polyak_epochs", "max_gradient_norm"])
def test_infinity_is_a_value_where_it_has_a_meaning(field: str) -> None:
    recipe = recipe_from_dict({field: math.inf})
    assert getattr(recipe, field) == math.inf
    assert recipe_from_dict(recipe.to_dict()) == recipe


def test_one_wide_replica_cannot_start_from_weights_of_one_width() -> None:
    with pytest.raises(UserError, match="wide_replica_width cannot be combined with init_weights"):
        Recipe(init_weights="bvlc_googlenet.npz", wide_replica_width=1.2)


def test_unit_variance_is_refused_where_batch_normalisation_rescales() -> None:
    with pytest.raises(UserError, match="lsuv is for the variant paper"):
        Recipe(initialisation="lsuv", variant="bn")


@pytest.mark.parametrize("setting", [{"teacher_policy": 1}, {"teacher_temperature": 3.0}, {"label_weight": 0.9}])
def test_settings_of_a_student_are_refused_where_there_is_no_teacher(tmp_path: Path, setting: dict[str, Any]) -> None:
    run = Storage.at(str(tmp_path))
    with pytest.raises(UserError, match=f"^{next(iter(setting))} .* has no effect, since only the recipe distil"):
        check_that_a_teacher_is_given(run, Recipe(name="demo", **setting))
    check_that_a_teacher_is_given(run, Recipe(name="distil", teacher="runs/mine", **setting))
    claim(run, "recipe", Recipe(name="demo", **setting).to_dict())  # begun before such settings were refused
    check_that_a_teacher_is_given(run, Recipe(name="demo", **setting))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"batch_size": 0}', "batch_size must be at least 1, got 0$"),
        ('{"epochs": "many"}', "epochs: "),
        ('{"epochs": true}', "epochs: Input should be a valid integer$"),
        ('{"replicas": "3"}', "replicas: Input should be a valid integer$"),
        ('{"mirror": "no"}', "mirror: Input should be a valid boolean$"),
        ('{"batch-size": 8}', r"unknown recipe field batch-size \(did you mean batch_size\?\); the fields are "),
        ('{"weight_decay": NaN}', "weight_decay must be finite, got nan$"),
        ('{"areas": [[0.1, 1e999]]}', "areas must be finite, got "),
        ('{"epochs": 2, "width": 1, "epochs": 20}', "epochs is there twice; remove one of them$"),
        ('{"recipe": {"epochs": 2, "epochs": 2}}', "epochs is there twice; remove one of them$"),
        ("[{}]", "a recipe is a JSON object, with a value for each field$"),
        ("7", "a recipe is a JSON object, with a value for each field$"),
    ],
)
def test_a_file_that_is_no_recipe_is_named_with_the_reason(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(content)
    with pytest.raises(UserError, match=f"^{path}: {message}"):
        load_recipe(str(path))


def test_a_missing_file_of_a_recipe_is_not_called_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^there is no recipe file {tmp_path}/nope\.json: correct the path"):
        load_recipe(str(tmp_path / "nope.json"))


def test_the_recipe_of_a_run_is_read_from_its_run_json(tmp_path: Path) -> None:
    recipe = load_recipe("demo")
    claim(Storage.at(str(tmp_path)), "recipe", recipe.to_dict())
    assert load_recipe(str(tmp_path / "run.json")) == recipe


def test_a_name_that_is_no_recipe_lists_those_that_are() -> None:
    with pytest.raises(UserError, match="demo"):
        load_recipe("dmeo")


def test_differences_name_field_and_both_values() -> None:
    old, new = Recipe(), replace(Recipe(), epochs=3, name="other")
    assert differences(old.to_dict(), new.to_dict()) == ["epochs: was 250, is now 3"]
    [line] = differences({"classes": [*map(str, range(1000))]}, {"classes": ["a", "b"]})
    assert "'9', 'and 990 more'], is now ['a', 'b']" in line


def test_replicas_differ_in_their_sampling_seed_only_unless_asked_otherwise() -> None:
    recipe = Recipe()
    assert {recipe.replica_weights_seed(k) for k in range(7)} == {0}
    assert [replace(recipe, shared_initial_weights=False).replica_weights_seed(k) for k in range(3)] == [0, 1, 2]
    wide = replace(recipe, wide_replica_width=1.2)
    assert [wide.replica_width(k) for k in range(7)] == [1.0] * 6 + [1.2]
    areas = replace(recipe, areas=((0.08, 1.0), (0.3, 1.0)))
    assert [areas.sampling(k).area for k in range(3)] == [(0.08, 1.0), (0.3, 1.0), (0.08, 1.0)]


def test_the_paper_recipe_is_the_papers() -> None:
    recipe = load_recipe("paper")
    assert (recipe.replicas, recipe.crop_px, recipe.variant, recipe.momentum) == (7, 224, "paper", 0.9)
    assert (recipe.dropout, recipe.aux_dropout, recipe.schedule) == (0.4, 0.7, "paper")
    assert recipe.areas == ((0.08, 1.0),)
    assert len(recipe.interpolations) == 4
