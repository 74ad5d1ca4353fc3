"""What a node published in one run, as a file: written by the recorder, read without ROS."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.types import PointCloud
from dust3r_ros.ros.errors import RosError

Matrix = NDArray[np.float64]


@dataclass(eq=False)
class RecordedRun:
    """Poses are child to parent; stamps nanoseconds; depth along z in map units, 0 where unknown."""

    depths: dict[int, NDArray[np.float32]] = field(default_factory=dict)  # stamp -> [H, W] in the camera's own pixels
    confidences: dict[int, NDArray[np.float32]] = field(default_factory=dict)  # stamp -> [H, W] >= 1
    cameras: dict[int, Camera] = field(default_factory=dict)  # stamp -> ~/depth/camera_info
    transforms: list[tuple[int, str, str, Matrix]] = field(default_factory=list)  # (stamp, parent, child, 4x4), as they came
    odometry: list[tuple[int, Matrix, NDArray[np.float64]]] = field(default_factory=list)  # (stamp, 4x4, [6, 6] covariance)
    path: list[tuple[int, Matrix]] = field(default_factory=list)  # newest ~/path: (stamp, 4x4 child to map), corrected
    clouds: int = 0  # ~/cloud messages
    map: PointCloud | None = None  # newest ~/map
    map_frame: str = ""
    keyframes: list[tuple[int, int, Matrix]] = field(default_factory=list)  # newest graph: (index, stamp, 4x4 camera to map)
    edges: list[tuple[int, int]] = field(default_factory=list)
    statuses: list[dict[str, Any]] = field(default_factory=list)  # every ~/status: fields of Status.msg, stamp in ns

    def live_trajectory(self, map_frame: str = "map") -> list[tuple[int, Matrix]]:
        """[(stamp, 4x4)] of the child in the map as TF said it at the time, uncorrected later on."""
        corrections: dict[int, tuple[str, Matrix]] = {}
        moved: dict[int, dict[str, Matrix]] = {}
        for stamp, parent, child, pose in self.transforms:
            if parent == map_frame:
                corrections[stamp] = (child, pose)
            else:
                moved.setdefault(stamp, {})[parent] = pose
        return [(stamp, pose @ moved[stamp][odom]) for stamp, (odom, pose) in sorted(corrections.items()) if odom in moved.get(stamp, {})]

    def save(self, path: Path) -> None:
        """One .npz file; replaces an earlier one only when it is whole."""
        arrays: dict[str, NDArray[Any]] = {}
        for name, images in (("depth", self.depths), ("confidence", self.confidences)):
            arrays.update({f"{name}/{stamp}": image for stamp, image in images.items()})
        arrays["odometry_pose"], arrays["odometry_covariance"] = (
            _stack([p for _, p, _ in self.odometry]),
            _stack([c for *_, c in self.odometry], 6),
        )
        arrays["path_pose"] = _stack([pose for _, pose in self.path])
        arrays["transform_pose"] = _stack([pose for *_, pose in self.transforms])
        arrays["keyframe_pose"] = _stack([pose for *_, pose in self.keyframes])
        if self.map is not None:
            arrays["map_points"], arrays["map_colors"], arrays["map_confidence"] = self.map.points, self.map.colors, self.map.confidence
        rest = {
            "cameras": {str(stamp): dataclasses.asdict(camera) for stamp, camera in self.cameras.items()},
            "odometry": [stamp for stamp, *_ in self.odometry],
            "path": [stamp for stamp, _ in self.path],
            "transforms": [entry[:3] for entry in self.transforms],
            "keyframes": [entry[:2] for entry in self.keyframes],
            "edges": self.edges,
            "clouds": self.clouds,
            "map_frame": self.map_frame,
            "statuses": self.statuses,
        }
        arrays["rest"] = np.frombuffer(json.dumps(rest).encode(), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.part")
        try:
            with unfinished.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> RecordedRun:
        """RosError if the file is not a recording."""
        try:
            with np.load(path) as file:
                arrays = dict(file)
            rest = json.loads(arrays.pop("rest").tobytes())
        except (OSError, ValueError, KeyError) as error:
            raise RosError(f"{path} is no recording of dust3r_ros.ros.recorder: {error}") from error
        images: dict[str, dict[int, NDArray[np.float32]]] = {"depth": {}, "confidence": {}}
        for name, values in arrays.items():
            kind, _, stamp = name.partition("/")
            if stamp:
                images[kind][int(stamp)] = values
        cloud = None
        if "map_points" in arrays:
            cloud = PointCloud(arrays["map_points"], arrays["map_colors"], arrays["map_confidence"])
        return cls(
            images["depth"],
            images["confidence"],
            {int(stamp): Camera(**{**camera, "distortion": tuple(camera["distortion"])}) for stamp, camera in rest["cameras"].items()},
            [(*entry, pose) for entry, pose in zip(rest["transforms"], arrays["transform_pose"], strict=True)],
            list(zip(rest["odometry"], arrays["odometry_pose"], arrays["odometry_covariance"], strict=True)),
            list(zip(rest["path"], arrays["path_pose"], strict=True)),
            rest["clouds"],
            cloud,
            rest["map_frame"],
            [(*entry, pose) for entry, pose in zip(rest["keyframes"], arrays["keyframe_pose"], strict=True)],
            [(i, j) for i, j in rest["edges"]],
            rest["statuses"],
        )


def _stack(matrices: list[Matrix], side: int = 4) -> Matrix:
    return np.stack(matrices) if matrices else np.zeros((0, side, side))
