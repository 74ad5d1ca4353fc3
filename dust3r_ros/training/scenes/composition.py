"""Which kinds of scene a batch is made of, and their parts put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.training.scenes.config import SceneConfig
from dust3r_ros.training.scenes.corridors import corridors
from dust3r_ros.training.scenes.drafting import Draft, Lighting, about_z, finished
from dust3r_ros.training.scenes.hills import hills
from dust3r_ros.training.scenes.materials import THING, Groups, draw
from dust3r_ros.training.scenes.rooms import rooms
from dust3r_ros.training.scenes.solids import Scenes
from dust3r_ros.training.scenes.standpoints import Standpoints
from dust3r_ros.training.scenes.streets import streets
from dust3r_ros.training.scenes.tables import tables

BUILDERS: dict[str, Callable[[Draft, Groups], tuple[Lighting, Standpoints]]] = {
    "room": rooms, "corridor": corridors, "table": tables, "street": streets, "terrain": hills,
}  # fmt: skip


def composed(config: SceneConfig, groups: Groups, meshes: NDArray[np.float64] | None, count: int, step: int,
             rng: np.random.Generator) -> list[tuple[Scenes, Standpoints]]:  # fmt: skip
    """`count` scenes on the host, and where their cameras may stand: those of solids alone, those of hills, those with one of `meshes`.

    Kinds are drawn by weight; how many are hills or have a mesh follows from the step, so that hardly a step has shapes of its own.
    """
    weights = {name: config.weights.get(name, 0.0) for name in BUILDERS}
    hilly = _share(weights["terrain"] / sum(weights.values()), count, step)
    flat = {name: weight for name, weight in weights.items() if name != "terrain" and weight > 0}
    meshed = _share(config.mesh_share, count - hilly, step) if meshes is not None and flat else 0
    parts = [_of_kinds(flat, groups, count - hilly - meshed, rng)] if count > hilly + meshed else []
    if hilly:
        parts.append(_of_kinds({"terrain": 1.0}, groups, hilly, rng))
    if meshed and meshes is not None:
        parts.append(_with_mesh(meshes, groups, meshed, rng))
    return parts


def _share(share: float, count: int, step: int) -> int:
    """How many of `count`, so that over the steps it is `share`."""
    return int((step + 1) * count * share + 1e-9) - int(step * count * share + 1e-9)


def _of_kinds(weights: dict[str, float], groups: Groups, count: int, rng: np.random.Generator) -> tuple[Scenes, Standpoints]:
    names = list(weights)
    chances = np.array(list(weights.values()))
    kinds = np.sort(rng.choice(len(names), count, p=chances / chances.sum()))
    scenes, stands = [], []
    for kind, name in enumerate(names):
        number = int((kinds == kind).sum())
        if number:
            draft = Draft(number, rng)
            light, stand = BUILDERS[name](draft, groups)
            scenes.append(finished(draft, light))
            stands.append(stand)
    scene = Scenes(*(torch.cat([getattr(part, field.name) for part in scenes]) for field in fields(Scenes)))
    return scene, Standpoints(*(np.concatenate([getattr(part, field.name) for part in stands]) for field in fields(Standpoints)))


def _with_mesh(meshes: NDArray[np.float64], groups: Groups, count: int, rng: np.random.Generator) -> tuple[Scenes, Standpoints]:
    """Rooms with a mesh on the floor, at which every other camera looks."""
    draft = Draft(count, rng)
    light, stand = rooms(draft, groups)
    middle = 0.5 * rng.uniform(stand.low, stand.high) * [1, 1, 0]
    size = draft.uniform(0.5, 1.6)[:, None, None, None]
    turned = np.einsum("sij,stcj->stci", about_z(draft.uniform(0, 2 * np.pi)), meshes[rng.integers(len(meshes), size=count)])
    draft.mesh(turned * size + middle[:, None, None], draw(groups, rng, count, THING, (0.3, 1.5)))
    looked = np.where((np.arange(stand.targets.shape[1]) % 2 == 0)[:, None], middle[:, None] + [0.0, 0.0, 0.4], stand.targets)
    return finished(draft, light), replace(stand, targets=looked)
