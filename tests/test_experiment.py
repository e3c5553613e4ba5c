"""Recipes: round trip, fingerprint, overrides, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from xsite.errors import RecipeError
from xsite.experiment import Experiment, load_experiment, parse_experiment
from xsite.experiment_parts import Optim


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_round_trip_keeps_everything(tmp_path: Path) -> None:
    experiment = Experiment(name="a", optim=Optim(lr=1e-4, epochs=3), seed=7, baselines=("zero",))
    experiment.to_yaml(tmp_path / "e.yaml")
    assert load_experiment(tmp_path / "e.yaml") == experiment


def test_fingerprint_follows_numbers_not_names() -> None:
    base = Experiment(name="a")
    assert base.fingerprint == Experiment(name="b").fingerprint
    assert base.fingerprint != Experiment(name="a", seed=1).fingerprint
    assert base.fingerprint != Experiment(name="a", optim=Optim(lr=1e-5)).fingerprint


def test_overrides_are_dotted_and_typed(tmp_path: Path) -> None:
    path = recipe(tmp_path, "optim: {epochs: 3}\n")
    experiment = load_experiment(path, ("optim.lr=1e-4", "data.channels=native", "folds.held_out=[alpha]"))
    assert experiment.optim.lr == pytest.approx(1e-4)
    assert experiment.optim.epochs == 3
    assert experiment.data.channels == "native"
    assert experiment.folds.held_out == ("alpha",)


def test_unknown_keys_are_refused_all_at_once_with_suggestions(tmp_path: Path) -> None:
    path = recipe(tmp_path, "sead: 1\noptim: {epocs: 3}\n")
    with pytest.raises(RecipeError) as caught:
        load_experiment(path)
    message = str(caught.value)
    assert str(path) in message
    assert "did you mean 'seed'" in message
    assert "did you mean 'epochs'" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim: {lr: -1}", "optim.lr"),
        ("[1, 2]", "mapping"),
        ("a: [", "not valid YAML"),
        ("data: {target: typo}", "'paper' or 'strict'"),
    ],
)
def test_bad_recipes_say_what_is_wrong(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        load_experiment(recipe(tmp_path, text))


def test_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.yaml"):
        load_experiment(tmp_path / "nowhere.yaml")


def test_override_without_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="KEY=VALUE"):
        load_experiment(recipe(tmp_path, "seed: 1"), ("seed",))


@pytest.mark.parametrize("text", ["", "# model: {name: neurobolt}\n", "---\n{}\n"])
def test_a_recipe_without_a_key_is_no_order_for_a_whole_study(tmp_path: Path, text: str) -> None:
    path = recipe(tmp_path, text)
    with pytest.raises(
        RecipeError, match=r"recipe\.yaml: the recipe says nothing.*model: \{name: neurobolt\}"
    ) as caught:
        load_experiment(path, ("seed=3",))
    path.write_text(str(caught.value).split("the model: ", 1)[1], encoding="utf-8")
    assert load_experiment(path) == Experiment()


def test_experiment_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Experiment().seed = 3


def test_flat_has_dotted_plain_values() -> None:
    flat = Experiment().flat()
    assert flat["optim.batch_size"] == 64
    assert flat["baselines"] == '["zero", "mean", "global-signal", "ridge", "ridge-window"]'
    assert all(isinstance(value, str | int | float | bool | None) for value in flat.values())


def test_json_of_a_job_rebuilds_the_same_experiment() -> None:
    experiment = Experiment(seed=3)
    assert parse_experiment(experiment.model_dump(mode="json"), "job") == experiment
