"""Pairs of a folder of posed RGB-D in TUM's layout, for fine-tuning (Sturm et al., IROS 2012: rgb.txt, depth.txt, groundtruth.txt)."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from dust3r_ros.training.errors import TrainingError
from dust3r_ros.training.pairs import PairBatch, View
from dust3r_ros.training.recipe import RgbdSection
from dust3r_ros.training.rgbd_files import Picture, read_sequence, sequences_of, split_of
from dust3r_ros.training.rgbd_overlap import pairs_by_overlap
from dust3r_ros.training.rgbd_views import loaded_view

log = logging.getLogger(__name__)

SALT = 5  # tells this data's random numbers from others of the same seed


class RgbdPairs:
    """A `PairSource` of pictures on the disk: pairs whose overlap, computed from their depth, is as asked. What cannot be used is said.

    `batch(step)` depends on the folder, the settings, seed, split and step alone. Training pairs come in either order, held-out ones
    as they are. Raises TrainingError where the folder gives no pair.
    """

    def __init__(
        self,
        settings: RgbdSection,
        width: int,
        height: int,
        pairs: int,
        seed: int,
        device: torch.device | str = "cpu",
        split: str = "train",
    ) -> None:
        self.settings, self.size, self.pairs, self.seed, self.split = settings, (width, height), pairs, seed, split
        self.device = torch.device(device)
        self.pictures: list[Picture] = []
        found: list[tuple[int, int]] = []
        for folder in sequences_of(settings.folder):
            sequence = split_of(read_sequence(folder, settings), settings.held_out, split)
            kept, chosen = pairs_by_overlap(sequence, settings)
            found += [(a + len(self.pictures), b + len(self.pictures)) for a, b in chosen]
            self.pictures += kept
            dropped = len(sequence) - len(kept)
            log.info("%s, %s: %d pictures, %d without enough depth dropped, %d pairs", folder, split, len(sequence), dropped, len(chosen))
        if not found:
            raise TrainingError(
                f"data.rgbd.folder {settings.folder}: no pair ({split}) has an overlap of {list(settings.overlap)}: widen "
                "data.rgbd.overlap, lower data.rgbd.every, or check the poses, data.rgbd.intrinsics and data.rgbd.depth_scale"
            )
        self.found = np.array(found)

    def batch(self, step: int) -> PairBatch:
        """The pairs of step `step` >= 0, read from the disk."""
        rng = np.random.default_rng([self.seed, SALT, ("train", "held_out").index(self.split), step])
        chosen = self.found[rng.integers(len(self.found), size=self.pairs)]
        if self.split == "train":
            chosen = np.where(rng.random((self.pairs, 1)) < 0.5, chosen, chosen[:, ::-1])
        return PairBatch(self._views(chosen[:, 0]), self._views(chosen[:, 1]))

    def _views(self, numbers: np.ndarray) -> View:
        columns = zip(*(loaded_view(self.pictures[number], *self.size, self.settings) for number in numbers), strict=True)
        values: list[Tensor] = [torch.from_numpy(np.stack(column)) for column in columns]
        view = View(*values)
        return view if self.device.type == "cpu" else View(*(value.pin_memory() for value in values)).to(self.device)
