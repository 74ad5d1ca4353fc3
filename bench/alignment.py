"""Our alignment beside plain Adam over everything, in one run: `python bench/alignment.py [--quick]`.

Simulated pairs of a furnished room (3 % noise, 2 % outliers, each pair on a scale of its own), window 3 both ways. Adam: our own few lines
over every pixel's log depth, poses, focal lengths and pair similarities, from the same spanning tree, learning rate 0.01 with cosine decay
(focal lengths a twentieth of that, or they run away). Objective: over all pixels, by `dust3r_ros.alignment.objective`. Trajectory error:
RMSE of positions after Sim(3).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "test"))
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.alignment import align, objective, place, world_points
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Similarity, procrustes
from dust3r_ros.mapping.scene_graph import SceneGraph
from dust3r_ros.simulation import SimulatedView, room_sequence

PROBLEMS = ((8, 128, 4), (12, 224, 4), (40, 128, 2))  # keyframes, width, frames apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[300])
    parser.add_argument("--quick", action="store_true", help="the smallest problem, 300 steps")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print("| keyframes | size | way | time | Adam / ours | objective | trajectory error | focal error |\n|---|---|---|---|---|---|---|---|")
    for count, width, apart in PROBLEMS[:1] if options.quick else PROBLEMS:
        compare(count, width, apart, [300] if options.quick else options.steps if count < 20 else [300])


def compare(count: int, width: int, apart: int, steps: Sequence[int]) -> None:
    views = list(room_sequence(frames=count * apart, width=width, height=width * 3 // 4, seed=3))[::apart]
    estimator = SimulatedEstimator(views, size=width, noise=0.03, outliers=0.02)
    tokens = {index: estimator.encode(view.image, view.camera) for index, view in enumerate(views)}
    predictions = estimator.estimate(tokens, SceneGraph.parse("swin-3").pairs(range(count), True))
    centres = {index: (t.camera.cx, t.camera.cy) for index, t in tokens.items()}
    true_focal = tokens[0].camera.fx
    align(predictions, principal_points=centres)  # once, for the libraries' sake
    times = []
    for _ in range(3):
        started = time.perf_counter()
        found = align(predictions, principal_points=centres)
        times.append(time.perf_counter() - started)
    ours = float(np.median(times))

    def row(way: str, seconds: float, value: float, positions: NDArray[np.float64], focals: NDArray[np.float64]) -> None:
        error, focal = trajectory_error(views, positions), float(np.abs(focals / true_focal - 1).max())
        size = f"{width}x{width * 3 // 4}"
        cells = f"{seconds:.3g} s | {seconds / ours:.0f} | {value:.5f} | {1e3 * error:.2f} mm | {100 * focal:.2f} %"
        print(f"| {count} | {size} | {way} | {cells} |", flush=True)

    row("ours", ours, found.objective, found.poses[:, :3, 3], found.focals)
    for number in steps:
        started = time.perf_counter()
        value, positions, focals = adam(predictions, centres, number)
        row(f"Adam, {number}", time.perf_counter() - started, value, positions, focals)


def adam(
    predictions: Sequence[PairPrediction], centres: dict[int, tuple[float, float]], steps: int
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Objective, positions [N, 3] and focal lengths [N]; all images are of one size."""
    placed, _ = place(predictions, None, centres)
    images = sorted(placed)
    at = {image: n for n, image in enumerate(images)}
    first, second = (torch.tensor([at[getattr(p, side)] for p in predictions]) for side in "ij")
    points = torch.stack([torch.stack([p.points_i, p.points_j]) for p in predictions]).flatten(2, 3)  # [E, 2, P, 3]
    weight = torch.stack([torch.stack([p.confidence_i, p.confidence_j]) for p in predictions]).flatten(2).log()
    height, width = predictions[0].confidence_i.shape
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([torch.stack([u - centres[i][0], v - centres[i][1]], -1).flatten(0, 1) for i in images]).float()
    parameters = start_parameters(predictions, placed, images)
    groups = [{"params": [value.requires_grad_()], "pace": 0.05 if name == "log_focal" else 1.0} for name, value in parameters.items()]
    optimiser = torch.optim.Adam(groups, lr=0.01, betas=(0.9, 0.9))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = group["pace"] * 0.005 * (1 + math.cos(math.pi * step / steps))
        world, target = scene(parameters, pixels, points)
        loss = (weight * (world[torch.stack([first, second], 1)] - target).norm(dim=-1)).mean(-1).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        rotation, position, scale = poses_of(parameters)
        turns = np.linalg.svd(rotations(parameters["pair_turn"]).double().numpy())
        moves = parameters["pair_move"].double().numpy()
        pair = [Similarity(float(s), r, t) for s, r, t in zip(scale, turns[0] @ turns[2], moves, strict=True)]
        poses = np.tile(np.eye(4), (len(images), 1, 1))
        poses[:, :3, :3], poses[:, :3, 3] = rotation.double().numpy(), position.double().numpy()
        depth, focal = parameters["log_depth"].exp(), parameters["log_focal"].exp()
        cloud = {i: world_points(depth[n].view(height, width), poses[n], float(focal[n]), centres[i]) for n, i in enumerate(images)}
        return objective(predictions, cloud, pair), poses[:, :3, 3], focal.double().numpy()


def start_parameters(predictions: Sequence[PairPrediction], placed: dict, images: list[int]) -> dict[str, Tensor]:
    from dust3r_ros.alignment.chain import fit

    pose = torch.from_numpy(np.stack([placed[i].pose for i in images])).float()
    depth = torch.stack([placed[i].depth() for i in images]).flatten(1)
    pairs = []
    for p in predictions:
        seen = torch.cat([p.points_i.reshape(-1, 3), p.points_j.reshape(-1, 3)])
        world = torch.cat([placed[p.i].points.reshape(-1, 3), placed[p.j].points.reshape(-1, 3)])
        found = fit(seen, world, torch.cat([p.confidence_i.flatten(), p.confidence_j.flatten()]))
        pairs.append(found or Similarity.identity())
    return {
        "turn": quaternions(pose[:, :3, :3]),
        "move": pose[:, :3, 3].clone(),
        "log_focal": torch.tensor([math.log(placed[i].focal) for i in images]),
        "log_depth": torch.where(depth > 0, depth, depth[depth > 0].median()).log(),
        "pair_turn": quaternions(torch.from_numpy(np.stack([s.rotation for s in pairs])).float()),
        "pair_move": torch.from_numpy(np.stack([s.translation for s in pairs])).float(),
        "pair_scale": torch.tensor([math.log(s.scale) for s in pairs]),
    }


def scene(parameters: dict[str, Tensor], pixels: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """World points by image [N, P, 3] and by pair [E, 2, P, 3]; the pairs' geometric mean scale is 0.5."""
    rotation, position, scale = poses_of(parameters)
    focal, depth = parameters["log_focal"].exp(), parameters["log_depth"].exp()
    rays = torch.cat([pixels / focal[:, None, None], torch.ones_like(pixels[..., :1])], -1) * depth[..., None]
    world = rays @ rotation.transpose(1, 2) + position[:, None]
    pair = scale[:, None, None] * rotations(parameters["pair_turn"])
    return world, points @ pair.transpose(1, 2)[:, None] + parameters["pair_move"][:, None, None]


def poses_of(parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    log_scale = parameters["pair_scale"]
    return rotations(parameters["turn"]), parameters["move"], 0.5 * (log_scale - log_scale.mean()).exp()


def rotations(quaternion: Tensor) -> Tensor:
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), 2 * (x * y + z * w), 1 - 2 * (x * x + z * z)]
    rows += [2 * (y * z - x * w), 2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, -1).view(-1, 3, 3)


def quaternions(rotation: Tensor) -> Tensor:
    from scipy.spatial.transform import Rotation

    x, y, z, w = torch.from_numpy(Rotation.from_matrix(rotation.double().numpy()).as_quat()).float().unbind(-1)
    return torch.stack([w, x, y, z], -1)


def trajectory_error(views: Sequence[SimulatedView], positions: NDArray[np.float64]) -> float:
    truth = np.stack([view.pose[:3, 3] for view in views])
    moved = procrustes(positions, truth).apply(positions)
    return float(np.sqrt(((moved - truth) ** 2).sum(1).mean()))


if __name__ == "__main__":
    main()
