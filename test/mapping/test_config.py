"""Settings: one place, checked by name, type, range and choice."""

import math
from dataclasses import fields, is_dataclass

import pytest

from dust3r_ros.mapping.config import ConfigError, MapperConfig, checked, settings, with_settings


def test_settings_are_changed_by_dotted_name_and_the_rest_stands() -> None:
    changed = with_settings(MapperConfig(), {"keyframes.max_rate": 5, "window.scene_graph": "complete"})
    assert changed.keyframes.max_rate == 5.0
    assert isinstance(changed.keyframes.max_rate, float)
    before, after = settings(MapperConfig()), settings(changed)
    assert {name for name in before if before[name] != after[name]} == {"keyframes.max_rate", "window.scene_graph"}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("keyframes.max_rat", 1.0, "keyframes.max_rate"),
        ("keyframes.max_rate", -1.0, "from 0"),
        ("keyframes.max_rate", math.nan, "from 0"),
        ("keyframes.max_rate", "fast", "float"),
        ("window.size", 3.0, "int"),
        ("window.size", True, "int"),
        ("window.size", 1, "from 2"),
        ("window.scene_graph", "swan-3", "swin-K"),
        ("estimator.model", "none_such", "flow"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name_and_what_it_may_be(name: str, value: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refusal:
        with_settings(MapperConfig(), {name: value})
    assert name in str(refusal.value)


def test_every_default_passes_its_own_check_and_is_described() -> None:
    def each(config: object, prefix: str = "") -> None:
        for item in fields(config):  # type: ignore[arg-type]
            value = getattr(config, item.name)
            if is_dataclass(value):
                each(value, f"{prefix}{item.name}.")
            else:
                assert checked(item, prefix + item.name, value) == value
                assert item.metadata["description"]

    each(MapperConfig())
