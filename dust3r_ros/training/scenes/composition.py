"""Which kinds of scene a batch is made of, and their parts put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import torch

from dust3r_ros.training.scenes.config import SceneConfig
from dust3r_ros.training.scenes.corridors import corridors
from dust3r_ros.training.scenes.drafting import Draft, Lighting, finished
from dust3r_ros.training.scenes.materials import Groups
from dust3r_ros.training.scenes.rooms import rooms
from dust3r_ros.training.scenes.solids import Scenes
from dust3r_ros.training.scenes.standpoints import Standpoints
from dust3r_ros.training.scenes.streets import streets
from dust3r_ros.training.scenes.tables import tables

BUILDERS: dict[str, Callable[[Draft, Groups], tuple[Lighting, Standpoints]]] = {
    "room": rooms, "corridor": corridors, "table": tables, "street": streets,
}  # fmt: skip


def composed(config: SceneConfig, groups: Groups, count: int, rng: np.random.Generator) -> tuple[Scenes, Standpoints]:
    """`count` scenes on the host, of kinds drawn by weight, and where their cameras may stand."""
    names = [name for name in BUILDERS if config.weights.get(name, 0) > 0]
    weights = np.array([config.weights[name] for name in names], float)
    kinds = np.sort(rng.choice(len(names), count, p=weights / weights.sum()))
    scenes, stands = [], []
    for kind, name in enumerate(names):
        number = int((kinds == kind).sum())
        if number:
            draft = Draft(number, rng)
            light, stand = BUILDERS[name](draft, groups)
            scenes.append(finished(draft, light))
            stands.append(stand)
    scene = Scenes(*(torch.cat([getattr(part, field.name) for part in scenes]) for field in fields(Scenes)))
    stand = Standpoints(*(np.concatenate([getattr(part, field.name) for part in stands]) for field in fields(Standpoints)))
    return scene, stand
