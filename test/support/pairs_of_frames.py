"""A simulated estimator for every frame: each pair's errors are its own by the pictures, and whole pairs may be off or wrong."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from dust3r_ros.estimators import PairPrediction, Tokens
from dust3r_ros.simulation import SimulatedView
from support.simulated_estimator import SimulatedEstimator


class PairsOfFrames(SimulatedEstimator):
    """As a network's: no two pairs err alike, whatever the keyframes' indices are."""

    def __init__(
        self,
        views: Sequence[SimulatedView],
        off: float = 0.0,
        astray: Collection[int] = (),
        unsure: Collection[int] = (),
        beside_cpu: bool = False,
        **errors: object,
    ) -> None:
        """`off`: by how much each pair turns and moves its second view, one standard deviation, radians and share of the depth.

        Of the pictures with these stamps, where they are estimated in one pair alone, as frames that are no keyframes are: `astray` ones
        are put a fifth of the depth beside where they are, in full confidence; of `unsure` ones everything is noise, of little confidence.
        """
        super().__init__(views, **errors)  # type: ignore[arg-type]
        self.beside_cpu, self._off = beside_cpu, off
        working = {view.stamp: self._working(view).tobytes() for view in views}
        self._astray, self._unsure = ({working[stamp] for stamp in some} for some in (astray, unsure))
        self._alone = False

    def estimate(self, views: Mapping[int, Tokens], pairs: Sequence[tuple[int, int]]) -> list[PairPrediction]:
        self._alone = len(pairs) == 1
        return super().estimate(views, pairs)

    def _random(self, i: int, j: int, view_j: Tokens) -> np.random.Generator:
        return np.random.default_rng([self._seed, i, j, zlib.crc32(view_j.image.tobytes())])

    def _pair(self, i: int, j: int, view_i: Tokens, view_j: Tokens) -> PairPrediction:
        found = super()._pair(i, j, view_i, view_j)
        picture = view_j.image.tobytes()
        rng = np.random.default_rng([self._seed, i, j, 1, zlib.crc32(picture)])
        if self._alone and picture in self._unsure:
            noise = torch.from_numpy(rng.normal(size=(2, *found.points_i.shape)).astype(np.float32))
            low = torch.full_like(found.confidence_i, 1.2)
            return replace(found, points_i=noise[0], points_j=noise[1], confidence_i=low, confidence_j=low)
        size = float(found.points_i[..., 2].median())
        turn = Rotation.from_rotvec(self._off * rng.normal(size=3)).as_matrix()
        move = size * (
            self._off * rng.normal(size=3) + (0.2 if self._alone and picture in self._astray else 0.0) * np.array([1.0, 0.0, 0.0])
        )
        points_j = found.points_j.numpy() @ turn.T + move
        return replace(found, points_j=torch.from_numpy(points_j.astype(np.float32)))
