"""What `align` is measured against: plain Adam over every pixel's log depth, all poses, focal lengths and pair similarities.

Our own few lines. Learning rate 0.01 with cosine decay to nothing, from the same spanning tree as `align`; log focal lengths go at a
twentieth of it. Tried on circle-8, 300 steps: betas (0.9, 0.9) end 3 % lower than (0.9, 0.999); the focal lengths' pace from 1/50 to 1
makes no difference to the objective. A rate of 0.02 or 0.03 reaches in 300 steps what 0.01 reaches in 1000.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from dust3r_ros.alignment import align, world_points
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Similarity, robust_procrustes

RATE = 0.01
PACES = {"log_focal": 0.05}  # of the learning rate, where not 1
BETAS = (0.9, 0.9)


@dataclass(frozen=True, eq=False)
class Scene:
    """Of images 0, 1, 2 ..., all of one size: where a way starts, or what it found."""

    poses: NDArray[np.float64]  # [N, 4, 4]
    focals: NDArray[np.float64]  # [N]
    depths: list[Tensor]  # N of [H, W]
    similarities: list[Similarity]  # of each prediction
    history: list[tuple[float, float]]  # seconds, objective


def plain_adam(predictions: Sequence[PairPrediction], centres: Mapping[int, tuple[float, float]], steps: int, rate: float = RATE) -> Scene:
    began = time.perf_counter()
    begin = start(predictions, centres)
    first, second = (torch.tensor([getattr(p, side) for p in predictions]) for side in "ij")
    sides = torch.stack([first, second], 1)
    points = torch.stack([torch.stack([p.points_i, p.points_j]) for p in predictions]).flatten(2, 3)  # [E, 2, P, 3]
    weight = torch.stack([torch.stack([p.confidence_i, p.confidence_j]) for p in predictions]).flatten(2).log()
    height, width = predictions[0].confidence_i.shape
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([torch.stack([u - centres[i][0], v - centres[i][1]], -1).flatten(0, 1) for i in range(len(begin.focals))]).float()
    parameters = parameters_of(begin)
    groups = [{"params": [value.requires_grad_()], "pace": PACES.get(name, 1.0)} for name, value in parameters.items()]
    optimiser = torch.optim.Adam(groups, lr=rate, betas=BETAS)
    history = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = group["pace"] * rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        world, target = both_sides(parameters, pixels, points)
        loss = (weight * (world[sides] - target).norm(dim=-1)).mean(-1).sum(1).mean()
        history.append((time.perf_counter() - began, float(loss.detach())))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return scene_of(parameters, (height, width), history)


def start(predictions: Sequence[PairPrediction], centres: Mapping[int, tuple[float, float]]) -> Scene:
    """The spanning tree alone."""
    if "refine" in inspect.signature(align).parameters:
        tree = align(predictions, principal_points=dict(centres), refine=False)  # type: ignore[call-arg]
        return Scene(tree.poses, tree.focals, tree.depths, every_similarity(predictions, tree, centres), [])
    from dust3r_ros.alignment import place

    placed = place(predictions, None, centres)[0]
    images = [placed[image] for image in sorted(placed)]
    points = {n: image.points for n, image in enumerate(images)}
    similarities = [fitted(p, points) for p in predictions]
    poses, focals = np.stack([image.pose for image in images]), np.array([image.focal for image in images])
    return Scene(poses, focals, [image.depth() for image in images], similarities, [])


def every_similarity(predictions: Sequence[PairPrediction], found, centres: Mapping[int, tuple[float, float]]) -> list[Similarity]:
    """Of an `Alignment`; a pair that it left out is fitted to its scene."""
    points = {}
    if any(similarity is None for similarity in found.pair_similarities):
        scene = zip(found.images, found.depths, found.poses, found.focals, strict=True)
        points = {image: world_points(depth, pose, float(focal), centres[image]) for image, depth, pose, focal in scene}
    return [s if s is not None else fitted(p, points) for p, s in zip(predictions, found.pair_similarities, strict=True)]


def fitted(prediction: PairPrediction, points: Mapping[int, Tensor], most: int = 3000) -> Similarity:
    """The robust similarity of a pair onto the world points of its two images."""
    seen = torch.cat([prediction.points_i.reshape(-1, 3), prediction.points_j.reshape(-1, 3)])
    world = torch.cat([points[prediction.i].reshape(-1, 3), points[prediction.j].reshape(-1, 3)])
    weight = torch.cat([prediction.confidence_i.flatten(), prediction.confidence_j.flatten()]).log()
    step = -(-len(seen) // most)
    found = robust_procrustes(*(part[::step].double().numpy() for part in (seen, world, weight)))
    return found or Similarity.identity()


def parameters_of(scene: Scene) -> dict[str, Tensor]:
    depth = torch.stack(scene.depths).flatten(1)
    rotations_, moves = torch.from_numpy(scene.poses[:, :3, :3].copy()), torch.from_numpy(scene.poses[:, :3, 3].copy())
    pairs = scene.similarities
    # The gauge holds the geometric mean of the pairs' scales at 0.5, so the start has to be there too.
    gauge = 0.5 / float(np.exp(np.mean([math.log(s.scale) for s in pairs])))
    return {
        "turn": quaternions(rotations_.numpy()),
        "move": (gauge * moves).float(),
        "log_focal": torch.from_numpy(np.log(scene.focals)).float(),
        "log_depth": (gauge * torch.where(depth > 0, depth, depth[depth > 0].median())).log().float(),
        "pair_turn": quaternions(np.stack([s.rotation for s in pairs])),
        "pair_move": torch.from_numpy(gauge * np.stack([s.translation for s in pairs])).float(),
        "pair_scale": torch.tensor([math.log(s.scale) for s in pairs]).float(),
    }


def scene_of(parameters: dict[str, Tensor], shape: tuple[int, int], history: list[tuple[float, float]]) -> Scene:
    turns, moves = orthonormal(parameters["turn"]), parameters["move"].double().numpy()
    poses = np.tile(np.eye(4), (len(turns), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = turns, moves
    pair_turns, pair_moves = orthonormal(parameters["pair_turn"]), parameters["pair_move"].double().numpy()
    similarities = [Similarity(float(s), r, t) for s, r, t in zip(scales(parameters), pair_turns, pair_moves, strict=True)]
    depths = [depth.view(shape) for depth in parameters["log_depth"].detach().exp()]
    return Scene(poses, parameters["log_focal"].exp().double().numpy(), depths, similarities, history)


def both_sides(parameters: dict[str, Tensor], pixels: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """World points by image [N, P, 3] and by pair [E, 2, P, 3]."""
    focal, depth = parameters["log_focal"].exp(), parameters["log_depth"].exp()
    rays = torch.cat([pixels / focal[:, None, None], torch.ones_like(pixels[..., :1])], -1) * depth[..., None]
    world = rays @ rotations(parameters["turn"]).transpose(1, 2) + parameters["move"][:, None]
    pair = scales(parameters)[:, None, None] * rotations(parameters["pair_turn"])
    return world, points @ pair.transpose(1, 2)[:, None] + parameters["pair_move"][:, None, None]


def scales(parameters: dict[str, Tensor]) -> Tensor:
    """[E], of geometric mean 0.5."""
    return 0.5 * (parameters["pair_scale"] - parameters["pair_scale"].mean()).exp()


def rotations(quaternion: Tensor) -> Tensor:
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), 2 * (x * y + z * w), 1 - 2 * (x * x + z * z)]
    rows += [2 * (y * z - x * w), 2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, -1).view(-1, 3, 3)


def orthonormal(quaternion: Tensor) -> NDArray[np.float64]:
    u, _, vt = np.linalg.svd(rotations(quaternion).double().numpy())
    return np.asarray(u @ vt)


def quaternions(rotation: NDArray[np.float64]) -> Tensor:
    x, y, z, w = torch.from_numpy(Rotation.from_matrix(rotation).as_quat()).float().unbind(-1)
    return torch.stack([w, x, y, z], -1)
