"""Every setting of a training run, with its default, range and meaning: what a recipe's YAML maps onto."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dust3r_ros.mapping.config import ConfigError, setting
from dust3r_ros.network import OWN, PUBLISHED

SIZE = re.compile(r"(\d+)x(\d+)")


def _sizes(name: str, value: tuple[Any, ...]) -> None:
    for size in value:
        found = SIZE.fullmatch(str(size))
        if not found or int(found[1]) % 8 or int(found[2]) % 8 or not 0 < int(found[1]) <= 2048 or not 0 < int(found[2]) <= 2048:
            raise ConfigError(f"'{name}' has {size!r}: give WIDTHxHEIGHT in multiples of 8 (most models: 16) up to 2048, e.g. 224x160")
    if not value:
        raise ConfigError(f"'{name}' is empty: give at least one size, e.g. [224x160]")


def _intrinsics(name: str, value: tuple[Any, ...]) -> None:
    if value and (len(value) != 4 or not all(isinstance(number, int | float) for number in value) or min(value) <= 0):
        raise ConfigError(f"'{name}' is {list(value)}: give four numbers above 0 in pixels, [fx, fy, cx, cy]")


def _share_range(name: str, value: tuple[Any, ...]) -> None:
    if len(value) != 2 or not all(isinstance(number, int | float) for number in value) or not 0 <= value[0] < value[1] <= 1:
        raise ConfigError(f"'{name}' is {list(value)}: give two shares, the lesser first, e.g. [0.2, 0.9]")


@dataclass(frozen=True)
class NetworkSection:
    model: str = setting("dust3r_nano", "sizes and heads; with weights, what they are if they do not say", choices=(*OWN, *PUBLISHED))
    weights: str = setting("", "file of weights to start from; empty: random ones; 'published': those of the model, from the hub")


@dataclass(frozen=True)
class RgbdSection:
    """A folder in TUM's layout: rgb.txt, depth.txt, groundtruth.txt and the pictures they name."""

    folder: str = setting("", "the folder, or one that holds several such")
    intrinsics: tuple[float, ...] = setting((), "fx, fy, cx, cy of the pictures in pixels; empty: TUM's default camera", check=_intrinsics)
    depth_scale: float = setting(5000.0, "values of the depth pictures for one metre", 1.0, 1e6)
    max_time_difference: float = setting(0.02, "seconds between a picture, its depth and its pose", 0.0, 10.0)
    max_depth: float = setting(10.0, "metres; what is farther counts as unknown", 0.1, 1000.0)
    every: int = setting(3, "take every n-th picture", 1, 1000)
    overlap: tuple[float, ...] = setting(
        (0.2, 0.95), "share of a view's depth that the other sees too, the lesser of both", check=_share_range
    )
    held_out: float = setting(0.1, "share at the end of each sequence that is kept for validation", 0.0, 0.5)
    min_depth_share: float = setting(0.2, "pictures with less of their depth known are dropped", 0.0, 1.0)


@dataclass(frozen=True)
class DataSection:
    source: str = setting("generated", "made-up scenes, or a folder of posed RGB-D", choices=("generated", "rgbd"))
    sizes: tuple[str, ...] = setting(("224x160",), "WIDTHxHEIGHT of the pictures; one is drawn for each step", check=_sizes)
    batch: int = setting(16, "pairs of one forward pass; both orders of each are trained", 1, 4096)
    pictures: int = setting(64, "pictures of one forward pass where they teach one by one", 2, 8192)
    replay: int = setting(1, "times that each batch made comes, after the first mirrored and in another light", 1, 64)
    accumulate: int = setting(1, "forward passes for one step of the optimiser", 1, 1024)
    rgbd: RgbdSection = field(default_factory=RgbdSection)


@dataclass(frozen=True)
class ObjectiveSection:
    alpha: float = setting(0.2, "weight of log C in the confidence-aware loss", 0.0, 10.0)
    from_nothing: bool = setting(False, "alpha is at least the mean error, so that random weights keep a confidence")
    metric: bool = setting(False, "the truth's scale is learned too: no normalisation of the prediction")
    completion: float = setting(0.0, "share of the schedule, at its start, of cross-view completion", 0.0, 0.9)
    alone: float = setting(
        0.0,
        "share of the schedule, after completion, in which pictures teach depth and focal length one by one; for networks that match cells",
        0.0,
        0.9,
    )
    hidden: float = setting(0.9, "share of view 1's patches that completion hides", 0.1, 0.99)
    matching: float = setting(0.0, "weight of the descriptors' InfoNCE, for networks that have them; 0: off", 0.0, 100.0)
    token_matching: float = setting(0.0, "weight of an InfoNCE between patches: those that see the same point are made alike", 0.0, 100.0)
    pose: float = setting(
        0.0, "weight of the second camera's rotation and direction and of both focal lengths, for a camera head; 0: off", 0.0, 100.0
    )
    geometry: float = setting(0.0, "weight of what matched cells and the cameras made of them are taught; 0: off", 0.0, 100.0)
    known_lens: float = setting(0.0, "share of the pairs whose intrinsics a network that matches cells is told", 0.0, 1.0)
    temperature: float = setting(0.07, "of the descriptors' and patches' similarities", 1e-3, 10.0)
    correspondences: int = setting(1024, "true correspondences of a pair that it takes", 8, 65536)


@dataclass(frozen=True)
class OptimiserSection:
    method: str = setting("adamw", "of the hidden layers' matrices; everything else is always AdamW's", choices=("adamw", "muon"))
    learning_rate: float = setting(4e-4, "at its peak", 1e-8, 1.0)
    final: float = setting(0.01, "share of the peak that the cosine ends at", 0.0, 1.0)
    warm_up: int = setting(500, "steps of linear warm-up, at the start of each objective", 0, 1_000_000)
    weight_decay: float = setting(0.05, "of both methods; none on norms and biases", 0.0, 1.0)
    clip: float = setting(1.0, "largest norm of the gradient", 1e-6, 1e6)
    ema: float = setting(0.9995, "decay of the averaged weights, which are validated and exported; 0: the last weights", 0.0, 0.99999999)
    max_skipped: int = setting(100, "steps in a row whose gradient is not finite, after which training ends with an error", 1, 1_000_000)


@dataclass(frozen=True)
class ScheduleSection:
    by: str = setting("steps", "what the cosine runs over; with minutes a resumed run cannot be exact", choices=("steps", "minutes"))
    steps: int = setting(100_000, "steps of the optimiser", 1, 1_000_000_000)
    minutes: float = setting(60.0, "minutes of training, over all runs that continue one another", 0.01, 1e6)


@dataclass(frozen=True)
class HardwareSection:
    device: str = setting("auto", "auto takes a GPU that it can use", choices=("auto", "cpu", "cuda"))
    precision: str = setting(
        "auto", "of the matrix products; auto: bfloat16 where the hardware has it", choices=("auto", "float32", "bfloat16")
    )
    compile: bool = setting(False, "torch.compile the network with its loss: minutes at the start; not for pairs whose cells are matched")
    prefetch: bool = setting(True, "make the next batch while this one is learned from: on a stream of its own, or in a thread")
    threads: int = setting(0, "CPU threads; 0: as many as PyTorch takes", 0, 1024)


@dataclass(frozen=True)
class RecordsSection:
    log_every: int = setting(50, "steps between two lines of losses", 1, 1_000_000)
    validate_every: int = setting(1000, "steps between two looks at held-out pairs; 0: never", 0, 10_000_000)
    validation_batches: int = setting(4, "held-out batches", 1, 10_000)
    save_every: int = setting(1000, "steps between two checkpoints", 1, 10_000_000)
    save_minutes: float = setting(10.0, "minutes after which a checkpoint is due in any case", 0.05, 1e6)
    milestone_every: int = setting(0, "steps between two checkpoints that are kept for good; 0: none", 0, 1_000_000_000)
    pictures: int = setting(4, "held-out pairs drawn at each validation", 0, 64)


@dataclass(frozen=True)
class Recipe:
    seed: int = setting(0, "of the weights, the data and the masks", 0, 2**31)
    network: NetworkSection = field(default_factory=NetworkSection)
    data: DataSection = field(default_factory=DataSection)
    objective: ObjectiveSection = field(default_factory=ObjectiveSection)
    optimiser: OptimiserSection = field(default_factory=OptimiserSection)
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    hardware: HardwareSection = field(default_factory=HardwareSection)
    records: RecordsSection = field(default_factory=RecordsSection)
    scenes: Mapping[str, Any] = field(default_factory=dict, metadata={"free": True})  # fields of scenes.PairsConfig, checked there

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height, in pixels."""
        return [(int(found[1]), int(found[2])) for size in self.data.sizes if (found := SIZE.fullmatch(size))]
