"""Scene graphs: the pairs of a set, and the pairs that a new keyframe brings."""

import pytest

from dust3r_ros.mapping.scene_graph import SceneGraph, SceneGraphError, directed

NAMES = "ABCD"


def named(graph: str) -> str:
    return " ".join(NAMES[i] + NAMES[j] for i, j in SceneGraph.parse(graph).pairs(range(4)))


@pytest.mark.parametrize(
    ("graph", "pairs"),
    [
        ("complete", "AB AC AD BC BD CD"),
        ("swin-1", "AB BC CD"),
        ("swin-2", "AB AC BC BD CD"),
        ("swin-9", "AB AC AD BC BD CD"),
        ("swin-1-cyclic", "AB AD BC CD"),
        ("logwin-1", "AB BC CD"),
        ("logwin-2", "AB AC BC BD CD"),
        ("oneref-0", "AB AC AD"),
        ("oneref-2", "AC BC CD"),
    ],
)
def test_pairs_of_four_images(graph: str, pairs: str) -> None:
    assert named(graph) == pairs


def test_logwin_reaches_back_in_powers_of_two() -> None:
    assert SceneGraph.parse("logwin-4").new_pairs(range(20), 20) == [(12, 20), (16, 20), (18, 20), (19, 20)]


@pytest.mark.parametrize("graph", ["complete", "swin-3", "logwin-3", "oneref-0"])
def test_one_by_one_brings_the_pairs_of_the_set(graph: str) -> None:
    parsed = SceneGraph.parse(graph)
    images = [3, 4, 7, 9, 10, 12]
    grown = [pair for at, image in enumerate(images) for pair in parsed.new_pairs(images[:at], image)]
    assert sorted(grown) == parsed.pairs(images)


def test_both_directions_doubles_each_pair() -> None:
    pairs = SceneGraph.parse("swin-2").pairs(range(4), both_directions=True)
    assert pairs == directed([(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)])
    assert len(set(pairs)) == 10


@pytest.mark.parametrize("graph", ["complete", "swin-3", "logwin-2", "oneref-0"])
@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_make_no_pairs(graph: str, count: int) -> None:
    assert SceneGraph.parse(graph).pairs(range(count)) == []


@pytest.mark.parametrize("name", ["", "swan-3", "swin", "swin-0", "swin-x", "complete-2", "oneref", "logwin--1", "swin-3-round"])
def test_a_wrong_name_is_refused_by_name(name: str) -> None:
    with pytest.raises(SceneGraphError, match=f"'{name}'"):
        SceneGraph.parse(name)


def test_a_reference_that_is_not_there_is_refused() -> None:
    with pytest.raises(SceneGraphError, match="only 3"):
        SceneGraph.parse("oneref-3").pairs(range(3))


@pytest.mark.parametrize("name", ["complete", "swin-3", "swin-2-cyclic", "logwin-4", "oneref-1"])
def test_a_name_survives_the_round_trip(name: str) -> None:
    assert str(SceneGraph.parse(name)) == name
