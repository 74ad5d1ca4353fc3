"""Recipes: strict, and those that are installed can be read; and the schedule that they ask for."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from dust3r_ros.training.errors import TrainingError
from dust3r_ros.training.recipe import Recipe
from dust3r_ros.training.recipe_file import data_of, filled, read_recipe, recipe_of
from dust3r_ros.training.replay import CLOSEST, Replayed
from dust3r_ros.training.scenes import PairsConfig
from dust3r_ros.training.schedule import Schedule
from dust3r_ros.training.sources import pictures_source, training_source

RECIPES = sorted((Path(__file__).parents[2] / "config/train").glob("*.yaml"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_installed_recipes_are_valid(file: Path) -> None:
    recipe = read_recipe(file)
    filled(PairsConfig, recipe.scenes, "scenes")
    assert recipe_of(json.loads(json.dumps(data_of(recipe))), "itself") == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {batches: 4}", "unknown setting 'data.batches': did you mean 'data.batch'"),
        ("data: {batch: four}", "'data.batch' is 'four', a str: give a int"),
        ("data: {batch: 0}", "'data.batch' is 0: give a value from 1 to 4096"),
        ("data: {sizes: [100x100]}", "'data.sizes' has '100x100': give WIDTHxHEIGHT in multiples of 8"),
        ("data: {sizes: []}", "'data.sizes' is empty"),
        ("data: {source: web}", "'data.source' is 'web': give one of generated, rgbd"),
        ("data: {rgbd: {intrinsics: [1, 2]}}", "give four numbers above 0"),
        ("schedule: {by: epochs}", "give one of steps, minutes"),
        ("optimiser: {clip: .nan}", "'optimiser.clip' is nan: give a value"),
        ("scenes: 5", "'scenes' is 5: give a mapping"),
        ("[1, 2]", "holds a list"),
        ("data: [", "cannot be read"),
    ],
)
def test_errors_name_key_value_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(TrainingError) as error:
        read_recipe(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)


def test_changes_on_top(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("data: {batch: 4, sizes: [64x48]}")
    recipe = read_recipe(file, ["data.batch=8", "data.sizes=[128x96, 96x128]", "scenes.overlap=[0.3, 1.0]"])
    assert (recipe.data.batch, recipe.sizes) == (8, [(128, 96), (96, 128)])
    assert filled(PairsConfig, recipe.scenes, "scenes").overlap == (0.3, 1.0)
    with pytest.raises(TrainingError, match="is no key=value"):
        read_recipe(file, ["data.batch"])
    with pytest.raises(TrainingError, match=r"unknown setting 'scenes\.colour'"):
        filled(PairsConfig, {"colour": 1}, "scenes")
    with pytest.raises(TrainingError, match=r"'scenes\.pairs_per_scene' is 'two'"):
        filled(PairsConfig, {"pairs_per_scene": "two"}, "scenes")


def _schedule() -> Schedule:
    settings = {"learning_rate": 1.0, "final": 0.1, "warm_up": 10}
    recipe: Recipe = recipe_of(
        {"optimiser": settings, "schedule": {"steps": 100, "minutes": 50}, "objective": {"completion": 0.2, "alone": 0.3}}, "the test"
    )
    return Schedule(recipe)


def test_learning_rate_warms_up_and_follows_the_cosine() -> None:
    schedule = _schedule()
    assert schedule.learning_rate(0.0, 0) == pytest.approx(0.1)
    assert schedule.learning_rate(0.0, 9) == pytest.approx(1.0)
    assert schedule.learning_rate(0.5, 50) == pytest.approx(0.55)
    assert schedule.learning_rate(0.25, 50) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert schedule.learning_rate(1.0, 100) == pytest.approx(0.1)


def test_objectives_and_end() -> None:
    schedule = _schedule()
    stages = [schedule.stage(schedule.progress(step, 0)) for step in (0, 19, 20, 49, 50, 99)]
    assert stages == ["completion", "completion", "alone", "alone", "pointmaps", "pointmaps"]
    assert [schedule.is_one_decoder(progress) for progress in (0.0, 0.3, 0.5)] == [True, True, False]
    assert not Schedule(recipe_of({"objective": {"alone": 0.3}}, "the test")).is_one_decoder(0.0)
    assert not schedule.is_over(99, 1e9)
    assert schedule.is_over(100, 0)
    timed = Schedule(recipe_of({"schedule": {"by": "minutes", "minutes": 50}}, "the test"))
    assert timed.progress(10**6, 25) == pytest.approx(0.5)
    assert timed.is_over(0, 50)


def test_pictures_one_by_one_are_halved_for_networks_that_halve_them() -> None:
    """Their blur and noise too: halving takes as much from a picture of twice the size."""
    recipe = recipe_of(
        {"data": {"sizes": ["64x48"], "batch": 2, "pictures": 6}, "scenes": {"effects": {"blur": 0.8, "jpeg": 0.6}}}, "the test"
    )
    for shrink in (1, 2):
        (source,) = pictures_source(recipe, torch.device("cpu"), shrink).sources
        config = source.config
        assert (config.width, config.height, config.pairs) == (64 // shrink, 48 // shrink, 3)
        assert (config.effects.blur, config.effects.noise, config.effects.jpeg) == (0.8 / shrink, 1.0 / shrink, 0.6)


@pytest.mark.parametrize("times", [1, 3])
def test_batches_come_as_often_as_the_recipe_says(times: int) -> None:
    """Views of a pair stay as close as they were: how far their matches lie apart is learned to a fraction of a pixel."""
    data = {"sizes": ["64x48"], "batch": 2, "pictures": 6, "replay": times, "accumulate": 2}
    recipe = recipe_of({"seed": 9, "data": data}, "the test")
    device = torch.device("cpu")
    for source, closest in ((training_source(recipe, device), 1.0), (pictures_source(recipe, device, 2), CLOSEST)):
        assert isinstance(source, Replayed) == (times > 1)
        if isinstance(source, Replayed):
            assert (source.times, source.seed, source.accumulate, source.closest) == (times, 9, 2, closest)
