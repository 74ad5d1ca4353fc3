"""A camera that has mapped a part of a round and then loses its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dust3r_ros.geometry import procrustes
from dust3r_ros.mapping import Frame, Mapper, MapperConfig, MapUpdate, TrackingState
from dust3r_ros.mapping.config import with_settings
from dust3r_ros.simulation import SimulatedView
from support.simulated_estimator import SimulatedEstimator

PERIOD = 100_000_000
CONFIG = with_settings(MapperConfig(), {"window.size": 5, "window.scene_graph": "swin-2", "map.voxel_size": 0.02})


class Walk:
    """A Mapper that has seen most of a round, and what it said; frames follow each other at 10 Hz unless some are left out."""

    def __init__(self, views: list[SimulatedView], also: Sequence[SimulatedView] = (), mapped: int = 56, **settings: object) -> None:
        self.mapper = Mapper(with_settings(CONFIG, settings), SimulatedEstimator([*views, *also], size=120, noise=0.01))
        self.truth: dict[int, np.ndarray] = {}
        self.updates: list[MapUpdate] = []
        self._stamp = views[0].stamp
        self.show(views[:mapped])
        assert self.mapper.state is TrackingState.TRACKING
        self.before = self.updates[-1]
        self.updates = []

    def show(self, views: list[SimulatedView], times: float = 1.0) -> list[MapUpdate]:
        shown = []
        for view in views:
            self._stamp += int(times * PERIOD)
            self.truth[self._stamp] = view.pose
            shown.append(self.mapper.add(Frame(self._stamp, view.image, view.camera)))
        self.updates += shown
        return shown

    def dark(self, view: SimulatedView, frames: int) -> list[MapUpdate]:
        return self.show([replace(view, image=np.zeros_like(view.image))] * frames)

    def errors(self, updates: list[MapUpdate]) -> list[float]:
        """Metres between poses and the truth, in the frame in which the keyframes lie best on theirs."""
        keyframes = [k for k in self.mapper.keyframes if k.stamp in self.truth]
        to_room = procrustes(np.stack([k.pose[:3, 3] for k in keyframes]), np.stack([self.truth[k.stamp][:3, 3] for k in keyframes]))
        return [
            float(np.linalg.norm(to_room.apply(u.pose[:3, 3]) - self.truth[u.frame.stamp][:3, 3])) for u in updates if u.pose is not None
        ]
