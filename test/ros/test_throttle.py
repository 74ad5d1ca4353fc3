"""A warning is said once, then counted."""

from dust3r_ros.ros.throttle import Throttle


def test_lines_that_differ_in_numbers_only_are_one_kind() -> None:
    said: list[str] = []
    warn = Throttle(said.append, period=1000)
    for k in range(5):
        warn(f"image {k} is bad")
    warn("another matter")
    assert said == ["image 0 is bad", "another matter"]


def test_a_line_said_again_tells_how_often_it_came_meanwhile() -> None:
    said: list[str] = []
    warn = Throttle(said.append, period=1000)
    warn("bad")
    warn("bad")
    warn("bad")
    warn._period = 0.0
    warn("bad")
    assert said == ["bad", "bad (2 more of these since)"]
