"""Images of several cameras to sets of one moment."""

from __future__ import annotations

from dust3r_ros.mapping.rigs.frame_sets import MomentSet, SetCollector

MS = 1_000_000
CAMERAS = ("front", "left", "right")


def make() -> SetCollector[str]:
    return SetCollector(CAMERAS, slop=20 * MS, timeout=100 * MS)


def put(collector: SetCollector[str], moments: list[tuple[str, int]]) -> list[dict[str, str]]:
    return [told.items for camera, at in moments for told in collector.put(camera, at * MS, f"{camera}{at}")]


def test_stamps_that_nearly_agree_are_one_set_in_any_order() -> None:
    found = put(make(), [("left", 1005), ("front", 1000), ("right", 991), ("right", 1098), ("left", 1103), ("front", 1100)])
    assert found == [
        {"front": "front1000", "left": "left1005", "right": "right991"},
        {"front": "front1100", "left": "left1103", "right": "right1098"},
    ]


def test_a_camera_that_stops_is_waited_for_only_a_while() -> None:
    collector = make()
    first = put(collector, [(name, at) for at in range(1000, 1400, 100) for name in CAMERAS])
    assert [len(one) for one in first] == [3, 3, 3, 3]
    late, at = [], 1400
    while "right" not in collector.absent():
        late.append((at, put(collector, [("front", at), ("left", at)])))
        at += 100
    assert all(set(one) == {"front", "left"} for _, told in late for one in told)
    assert put(collector, [("front", at), ("left", at)])[-1] == {"front": f"front{at}", "left": f"left{at}"}  # at once by now
    assert set(put(collector, [(name, at + 100) for name in CAMERAS])[0]) == {"front", "left"}
    assert len(put(collector, [(name, at + 200) for name in CAMERAS])[-1]) == 3  # it is back


def test_one_that_never_comes_is_given_up_too() -> None:
    collector = make()
    put(collector, [(name, at) for at in range(1000, 2300, 100) for name in ("front", "left")])
    assert collector.absent() == ("right",)
    assert put(collector, [("front", 2300), ("left", 2300)]) == [{"front": "front2300", "left": "left2300"}]


def test_an_incomplete_set_goes_before_a_complete_one_and_late_ones_are_counted() -> None:
    collector = make()
    found = put(collector, [("front", 1000), ("left", 1000), *[(name, 1050) for name in CAMERAS], ("right", 1000)])
    assert [sorted(one) for one in found] == [["front", "left"], ["front", "left", "right"]]
    assert collector.late == 1


def test_what_waits_can_be_had_and_stamps_that_jump_back_begin_anew() -> None:
    collector = make()
    assert put(collector, [("front", 9000)]) == []
    waiting: list[MomentSet[str]] = collector.flush()
    assert [one.items for one in waiting] == [{"front": "front9000"}]
    assert put(collector, [(name, 1000) for name in CAMERAS]) == [{name: f"{name}1000" for name in CAMERAS}]
