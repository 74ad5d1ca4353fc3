"""The sequences that there are: a hand-held camera in the furnished room, circles in it, and walks along corridors."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.simulation.corridor import CELL, corridor, corridor_of_identical_cells, ring_of_corridors
from dust3r_ros.simulation.repeated import RepeatedSequence
from dust3r_ros.simulation.room import room
from dust3r_ros.simulation.sequence import PERIOD, SimulatedSequence, camera_at

SPEED = 0.40  # m/s along the path of the hand-held camera in the room
EYE = 1.45  # m, height of the camera on the other walks
TURN = 0.9  # m, radius of the way round a corner of a corridor


def room_sequence(frames: int = 60, width: int = 640, height: int = 480, seed: int = 0, readout: float = 0.0) -> SimulatedSequence:
    """`frames` views at 10 Hz of a furnished room, from a camera that moves sideways on an arc, looking inward, about 4 cm a frame.

    Frame k is the same whatever `frames` is. `seed` changes paint, books and sensor noise; the geometry of the rest and the path stay.
    Pictures on the walls are scikit-image's where it is installed, else painted. Views are rendered lazily: iterate once, or keep them.
    `readout`: seconds that the camera takes from its first row to its last.
    """
    return SimulatedSequence(frames, width, height, seed, room, lambda index: camera_pose(index * PERIOD * 1e-9), readout)


def circle_sequence(
    frames: int = 60, width: int = 640, height: int = 480, seed: int = 0, diameter: float = 1.6, inward: bool = True
) -> SimulatedSequence:
    """`frames` views, evenly once round a circle in the middle of the room, looking at its middle or (not `inward`) at the walls."""
    return SimulatedSequence(frames, width, height, seed, room, lambda index: circle_pose(index / frames, diameter, inward))


def corridor_sequence(frames: int = 100, width: int = 640, height: int = 480, seed: int = 0, step: float = 0.25) -> SimulatedSequence:
    """`frames` views, `step` metres apart, straight along a corridor that goes on beyond the last; the gaze wanders from wall to wall.

    `seed` changes what stands at the walls, its paint and the sensor's noise.
    """
    cells = math.ceil(frames * step / CELL) + 3
    return SimulatedSequence(frames, width, height, seed, partial(corridor, cells=cells), lambda index: corridor_pose(index * step))


def identical_doors_sequence(frames: int = 100, width: int = 160, height: int = 120, seed: int = 0, steps: int = 8) -> RepeatedSequence:
    """`frames` views, `steps` a cell of 2.4 m, straight along an endless corridor of identical cells: nothing tells one from the next.

    View k + `steps` shows what view k shows, but for the sensor's noise.
    """
    step = CELL / steps

    def path(index: float) -> NDArray[np.float64]:
        return _walker(np.array([0.0, index * step]), 0.3, 0.0)

    return RepeatedSequence(frames, width, height, seed, corridor_of_identical_cells, path, steps)


def ring_sequence(frames: int = 100, width: int = 640, height: int = 480, seed: int = 0, cells: int = 5) -> SimulatedSequence:
    """`frames` views, evenly once round a square of corridors, `cells` (3 or more) of 2.4 m a side: the one after the last is the first."""
    if cells < 3:
        raise ValueError(f"a ring of corridors of {cells} cells a side has no inside: give 3 or more")
    place = partial(ring_of_corridors, cells=cells)
    return SimulatedSequence(frames, width, height, seed, place, lambda index: ring_pose(index / frames, cells))


def camera_pose(seconds: float) -> NDArray[np.float64]:
    """Camera to world (4x4) after so many seconds: round an ellipse that starts as a sideways arc, with the sway of a hand."""
    angle = math.radians(-54.0) + SPEED / 1.3 * seconds

    def sway(*frequencies: float) -> float:
        return sum(math.sin(2 * math.pi * f * seconds + 7.3 * f) for f in frequencies) / len(frequencies)

    position = np.array([1.3 * math.sin(angle), -1.55 - 0.38 * math.cos(angle), 1.32 + 0.10 * math.sin(0.9 * seconds)])
    position += 0.008 * np.array([sway(0.7, 1.3), sway(0.9, 1.7), sway(0.8, 1.9)])
    target = np.array([0.15 * math.sin(angle), 1.55, 0.88]) + 0.02 * np.array([sway(0.31, 0.83), 0.0, sway(0.43, 1.1)])
    return camera_at(position, target - position, 0.015 * sway(0.37, 0.9))


def circle_pose(turn: float, diameter: float, inward: bool) -> NDArray[np.float64]:
    """Camera to world (4x4) after `turn` of the circle, whose middle is the room's."""
    angle = 2 * math.pi * turn
    outward = np.array([math.sin(angle), -math.cos(angle), 0.0])
    position = outward * diameter / 2 + [0.0, 0.0, EYE + 0.05 * math.sin(2 * angle)]
    return camera_at(position, (-outward if inward else outward) - [0.0, 0.0, 0.2])


def corridor_pose(distance: float) -> NDArray[np.float64]:
    """Camera to world (4x4) after so many metres along y."""
    return _walker(np.array([0.0, distance]), 0.0, 2 * math.pi * distance / 12.0)


def ring_pose(turn: float, cells: int) -> NDArray[np.float64]:
    """Camera to world (4x4) after `turn` of the ring, to the left all the way, from the middle of its first side, which lies along x."""
    side = (cells - 1) * CELL
    straight, arc = side - 2 * TURN, math.pi / 2 * TURN
    corner, along = divmod((turn % 1.0) * 4 * (straight + arc) + straight / 2, straight + arc)
    bend = max(0.0, along - straight) / TURN
    # In the frame of one side: it starts behind its first corner, ends before its second, and the next one goes off to the left.
    x = TURN + min(along, straight) + TURN * math.sin(bend)
    y = TURN * (1 - math.cos(bend))
    quarter = corner * math.pi / 2
    c, s = math.cos(quarter), math.sin(quarter)
    flat = np.array([c * (x - side / 2) - s * (y - side / 2), s * (x - side / 2) + c * (y - side / 2)]) + side / 2
    return _walker(flat, quarter + bend - math.pi / 2, 2 * math.pi * turn * 2 * cells)


def _walker(flat: NDArray[np.float64], heading: float, phase: float) -> NDArray[np.float64]:
    """Somebody who walks at `flat` (x, y) towards `heading` (radians left of y) and looks about; the same again after 2 pi of `phase`."""
    right = np.array([math.cos(heading), math.sin(heading), 0.0])
    gaze = heading + 0.45 * math.sin(phase) + 0.1 * math.sin(3 * phase)
    forward = np.array([-math.sin(gaze), math.cos(gaze), -0.08 + 0.06 * math.sin(2 * phase + 1.0)])
    position = np.array([flat[0], flat[1], EYE + 0.04 * math.sin(5 * phase)]) + 0.12 * math.sin(2 * phase) * right
    return camera_at(position, forward, 0.015 * math.sin(4 * phase))
