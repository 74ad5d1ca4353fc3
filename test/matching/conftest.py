"""Two views of the room, 16 cm apart, and predictions about them."""

from __future__ import annotations

import pytest

from dust3r_ros.simulation import SimulatedView, room_sequence


@pytest.fixture(scope="session")
def views() -> list[SimulatedView]:
    sequence = room_sequence(8, 160, 120)
    return [sequence[0], sequence[5]]
