"""The edges of a map's graph: in the order in which they came, and counted by keyframe."""

from __future__ import annotations

from dust3r_ros.mapping.keyframes.map_edges import MapEdges
from dust3r_ros.mapping.scene_graph import SceneGraph


def test_all_that_tell_of_a_keyframe_are_counted_however_many_came_since() -> None:
    edges, graph = MapEdges(), SceneGraph.parse("complete")
    for newest in range(12):
        edges.extend(graph.new_pairs(range(newest), newest, both_directions=True))
    assert [edges.count(keyframe) for keyframe in range(12)] == [2 * 11] * 12
    assert edges.count(12) == 0


def test_pairs_that_are_rejected_go_in_both_directions() -> None:
    edges = MapEdges()
    edges.extend([(0, 1), (1, 0), (1, 2), (2, 1)])
    edges.discard({(0, 1)})
    assert list(edges) == [(1, 2), (2, 1)]
    assert [edges.count(keyframe) for keyframe in range(3)] == [0, 2, 2]
