"""The steps of `two_view_bundle` that nobody learns from, on a CPU: between torch and the loops of `compiled_bundle`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dust3r_ros.network.two_view_reprojection import MatchedView, PairState


@torch.no_grad()
def stepped(
    state: PairState, one: MatchedView, two: MatchedView, alike: tuple[Tensor, float], scale_weight: float,
    asked: Sequence[tuple[float, float]], turning: int, bounds: tuple[float, ...],
) -> tuple[PairState, tuple[Tensor, Tensor]]:  # fmt: skip
    """The state after one step for each of `asked`, damping and doubt, and what both views' cells miss by there, [B, M, 2] each.

    alike: inverse variance of the difference of one camera's log focal lengths, and the difference beyond which they are two cameras'.
    turning: the first steps, in which the cameras turn only; bounds: as `compiled_bundle.steps` has them.
    """
    from dust3r_ros.network import compiled_bundle

    dampings, doubts = np.array(asked).reshape(-1, 2).T.copy()
    rotation, translation = state.rotation.double().numpy().copy(), state.translation.double().numpy().copy()
    logs = torch.stack([state.log_focal_1, state.log_focal_2, state.log_scale], dim=1).double().numpy()
    depths = [value.float().numpy().copy() for value in (state.log_depth_1, state.log_depth_2)]
    views = [_arrays(view) for view in (one, two)]
    missed = [np.empty_like(view[1]) for view in views]
    for pair in range(len(rotation)):
        alone = [(*(value[pair] for value in view[:5]), float(view[5][pair]), float(view[6][pair])) for view in views]
        now = (rotation[pair], translation[pair], logs[pair], depths[0][pair], depths[1][pair])
        compiled_bundle.steps(*alone, (float(alike[0]), alike[1]), scale_weight, *now, dampings, doubts, turning, bounds)
        compiled_bundle.missed(*alone, *now, bounds[0], missed[0][pair], missed[1][pair])
    focal_1, focal_2, scale = torch.from_numpy(logs).float().unbind(1)
    cameras = torch.from_numpy(rotation).float(), torch.from_numpy(translation).float(), focal_1, focal_2, scale
    after = PairState(*cameras, torch.from_numpy(depths[0]), torch.from_numpy(depths[1]))
    return after, (torch.from_numpy(missed[0]), torch.from_numpy(missed[1]))


def _arrays(view: MatchedView) -> list[NDArray[np.float32]]:
    places = view.places.expand(len(view.weight), -1, -1)
    values = (places, view.found, view.weight, view.log_depth, view.depth_weight, view.log_focal, view.focal_weight)
    return [np.ascontiguousarray(value.detach().float().numpy()) for value in values]
