"""Every setting of the Mapper, with its default, its range and what it does: the one place they are written.

The ROS node declares its parameters from these fields (`keyframes.min_parallax`, ...), the commands and the README's table read them too.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from typing import Any

from dust3r_ros.errors import Dust3rError
from dust3r_ros.estimators import MODELS
from dust3r_ros.mapping.scene_graph import SceneGraph, SceneGraphError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
SCALE_SOURCES = ("auto", "none", "odometry", "depth", "height", "network", "rig")


class ConfigError(Dust3rError):
    """A setting out of its range or of the wrong type."""


def setting(
    default: Any,
    description: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    check: Callable[[str, Any], None] | None = None,
) -> Any:
    """A dataclass field with its range (inclusive), choices or check, and description."""
    return field(default=default, metadata={"description": description, "low": low, "high": high, "choices": choices, "check": check})


def _scene_graph(name: str, value: str) -> None:
    try:
        SceneGraph.parse(value)
    except SceneGraphError as error:
        raise ConfigError(f"'{name}': {error}") from None


@dataclass(frozen=True)
class EstimatorConfig:
    model: str = setting("auto", "two-view estimator; auto picks the best one that this machine has", choices=MODELS)
    weights: str = setting("", "file of the network's weights; empty: the shipped or published ones, from the hub's cache or fetched")
    device: str = setting("auto", "where the network runs: auto takes a GPU that it can use", choices=("auto", "cpu", "cuda"))
    precision: str = setting("auto", "numbers of its matrix products; auto: half precision where the hardware has it", choices=PRECISIONS)
    every_frame: str = setting(
        "auto",
        "pair every frame with the last keyframe too, which refines both; auto: on a GPU that keeps up with the camera",
        choices=("auto", "always", "never"),
    )
    compile: bool = setting(False, "compile the network with torch.compile (CPU: needs g++): a minute or two at first, then seconds")
    assumed_fov: float = setting(60.0, "horizontal field of view in degrees assumed when no CameraInfo is there", 10.0, 170.0)
    self_calibration: str = setting(
        "auto",
        "find the lens (auto: where no CameraInfo is there) and (flow) the readout from the first keyframes; flow and dust3r_nano",
        choices=("auto", "always", "never"),
    )
    readout: float = setting(
        0.0,
        "seconds from the camera's first row to the last (rolling shutter), as far as known; self_calibration finds the rest",
        -0.2,
        0.2,
    )
    size: int = setting(0, "longer side of the working image in pixels; 0: the model's own (flow 320, networks 512 or 224)", 0, 1024)


@dataclass(frozen=True)
class KeyframeConfig:
    min_parallax: float = setting(
        0.0125, "median parallax since the last keyframe beyond rotation, as a share of the image width", 0.0, 1.0
    )
    min_baseline: float = setting(
        0.1, "way since the last keyframe, as a share of its median depth, that brings a new one; 0: off", 0.0, 10.0
    )
    min_overlap: float = setting(0.65, "share of the last keyframe's points still in view below which a new keyframe is due", 0.0, 1.0)
    max_new: float = setting(
        0.4, "share of the picture that shows nothing of what the last keyframe saw, above which a new one is due; 1: off", 0.0, 1.0
    )
    max_interval: float = setting(
        0.0, "seconds after which a moving camera gets a keyframe at a quarter of the parallax; 0: never", 0.0, 3600.0
    )
    max_rate: float = setting(10.0, "at most this many keyframes a second of the images' own time; 0: no limit", 0.0, 1000.0)
    min_sharpness: float = setting(0.4, "a frame less sharp than this share of its recent peers' median waits; 0: off", 0.0, 1.0)
    max_saturation: float = setting(0.5, "a frame with more than this share of black or white pixels waits", 0.0, 1.0)


@dataclass(frozen=True)
class WindowConfig:
    size: int = setting(10, "keyframes in the sliding window", 2, 64)
    scene_graph: str = setting("swin-3", "the keyframes a new one is paired with: complete, swin-K, logwin-K, oneref-I", check=_scene_graph)


@dataclass(frozen=True)
class AlignmentConfig:
    every: int = setting(10, "keyframes between two alignments of the whole graph; 0: only after a loop and on ~/align", 0, 10_000)
    loops: bool = setting(True, "pair a new keyframe with an old one that looks alike, to take the drift out")
    min_alike: float = setting(0.65, "how alike (cosine of their descriptors) two pictures must be to be tried as a loop", 0.0, 1.0)


@dataclass(frozen=True)
class MapConfig:
    voxel_size: float = setting(
        0.0,
        "edge of a map voxel in map units, metres once the scale is known; 0: a 200th of the first keyframe's median depth",
        0.0,
        1e6,
    )
    max_points: int = setting(1_000_000, "points the map holds at most; the least certain go first", 1000, 100_000_000)
    tile_size: float = setting(2.0, "edge of the cubes that the map is kept, bounded and published in, map units", 1e-3, 1e6)
    max_points_per_tile: int = setting(200_000, "points a tile holds at most; the least certain go first", 100, 100_000_000)
    min_confidence: float = setting(3.0, "points below this confidence stay out of the map", 1.0, 1e6)
    remove_floaters: bool = setting(True, "leave out points that hide in front of what the keyframes around see")
    max_keyframes: int = setting(10_000, "keyframes kept with their pose and small picture; older ones are thinned out", 16, 1_000_000)
    max_pieces: int = setting(
        8, "pieces of map kept, which a lost camera has seen and whose place in the map is not known yet; the smallest go first", 0, 1000
    )
    keyframes_in_memory: int = setting(500, "of these, how many are kept in memory; the others are files", 1, 1_000_000)
    folder: str = setting("", "folder for keyframes that are not in memory; empty: the system's for temporary files. Removed at the end")


@dataclass(frozen=True)
class ScaleConfig:
    source: str = setting("auto", "where metric scale comes from; auto: all there are, fused; none: it is left open", choices=SCALE_SOURCES)
    camera_height: float = setting(0.0, "metres of the camera above the ground it drives on; 0: not known", 0.0, 1000.0)
    camera_pitch: float = setting(0.0, "degrees that the camera looks down, for camera_height without a base_frame", -89.0, 89.0)
    min_path: float = setting(2.0, "metres that odometry has to go before it is believed", 0.1, 1e6)
    max_uncertainty: float = setting(0.05, "share of the scale: a source of more noise than this is not believed yet", 1e-4, 1.0)


@dataclass(frozen=True)
class MapperConfig:
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    keyframes: KeyframeConfig = field(default_factory=KeyframeConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    map: MapConfig = field(default_factory=MapConfig)


def settings(config: Any, prefix: str = "") -> dict[str, Any]:
    """All settings of a (nested) configuration by dotted name: `{"keyframes.max_rate": 10.0, ...}`."""
    found: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            found.update(settings(value, f"{prefix}{item.name}."))
        else:
            found[prefix + item.name] = value
    return found


def with_settings(config: Any, changes: dict[str, Any]) -> Any:
    """A copy of `config` with settings changed by dotted name; each is checked for name, type, range and choice (ConfigError)."""
    known = settings(config)
    for name in changes:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"
            raise ConfigError(f"unknown setting '{name}': {remedy}")
    return _changed(config, changes, "")


def _changed(config: Any, changes: dict[str, Any], prefix: str) -> Any:
    new: dict[str, Any] = {}
    for item in fields(config):
        name, value = prefix + item.name, getattr(config, item.name)
        if is_dataclass(value):
            new[item.name] = _changed(value, changes, f"{name}.")
        elif name in changes:
            new[item.name] = checked(item, name, changes[name])
    return replace(config, **new)


def checked(item: Field[Any], name: str, value: Any) -> Any:
    """`value` for the setting `item`, as its default's type, or a ConfigError that names it, its value and what it may be."""
    kind, low, high, choices = type(item.default), item.metadata["low"], item.metadata["high"], item.metadata["choices"]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple and isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        value = tuple(value)
    if type(value) is not kind:
        raise ConfigError(f"'{name}' is {value!r}, a {type(value).__name__}: give a {kind.__name__}, e.g. {item.default!r}")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise ConfigError(f"'{name}' is {value!r}: give a value from {low} to {high}")
    if choices and value not in choices:
        raise ConfigError(f"'{name}' is {value!r}: give one of {', '.join(choices)}")
    if item.metadata["check"] is not None:
        item.metadata["check"](name, value)
    return value
