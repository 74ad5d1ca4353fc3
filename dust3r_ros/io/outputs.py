"""What a run leaves behind: `MapWriter` writes a folder that appears whole or not at all.

`trajectory.tum`, `map.ply`, `map.glb`, `depth/STAMP.png` and `cameras.json` are the same, byte for byte, for the same input;
`summary.json` and `report.html` carry times too.
"""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros import __version__
from dust3r_ros.errors import Dust3rError
from dust3r_ros.io.atomic import OutputError, atomic_folder
from dust3r_ros.io.meshes import MeshError, load_open3d, write_mesh
from dust3r_ros.io.point_clouds import write_glb, write_ply
from dust3r_ros.io.report import Report, Strip, write_report
from dust3r_ros.io.trajectory import write_tum
from dust3r_ros.mapping import Keyframe, Localiser, Mapper, MapUpdate, depth_image, settings

# All that a run leaves, and what each leaves
OURS = {"trajectory.tum", "map.ply", "map.glb", "depth", "cameras.json", "summary.json", "report.html", "mesh.ply"}
ALWAYS = {"trajectory.tum", "cameras.json", "summary.json"}
DECIMALS = 9  # of poses and cameras: beyond these, code that was compiled just now rounds otherwise than from its cache
MILLI = 1000.0  # depth PNGs count thousandths of a map unit: millimetres where the scale is metric
STRIPS = 6  # keyframes shown in the report


log = logging.getLogger(__name__)


class NothingMappedError(Dust3rError):
    """A run that ended without a map."""


@contextmanager
def map_folder(folder: Path, name: str, mapper: Mapper | Localiser, mesh: bool = False) -> Iterator[MapWriter]:
    """Collects updates; at the end the folder takes its place. Raises OutputError, or NothingMappedError, and leaves what was there.

    `mesh`: with a surface. Raises MeshError at once without Open3D; where none comes of the points that is said, and the rest stays.
    """
    folder = folder.expanduser().resolve()
    _refuse_foreign(folder)
    if mesh:
        load_open3d()
    with atomic_folder(folder) as temporary:
        writer = MapWriter(temporary, name, mapper)
        yield writer
        writer.finish()
        if mesh:
            try:
                write_mesh(temporary / "mesh.ply", mapper.cloud(), np.array([pose[:3, 3] for _, pose in mapper.trajectory()]))
            except MeshError as error:
                (temporary / "mesh.ply").unlink(missing_ok=True)
                log.warning("no mesh.ply: %s", error)


class MapWriter:
    """Writes a keyframe's depth as soon as it can no longer change, the rest in `finish`."""

    def __init__(self, folder: Path, name: str, mapper: Mapper | Localiser) -> None:
        self.folder, self.name, self._mapper = folder, name, mapper
        (folder / "depth").mkdir()
        self._open: dict[int, Keyframe] = {}  # those that may still be revised
        self._cameras: dict[int, dict[str, Any]] = {}
        self._unit_when_written: dict[int, float] = {}
        self._strips: list[Strip] = []
        self._seconds: dict[str, float] = {}
        self._stamps: set[int] = set()  # of the frames added so far
        self._started = time.perf_counter()
        self._sizes: set[tuple[int, int]] = set()

    @property
    def frames(self) -> int:
        """Added so far."""
        return len(self._stamps)

    def add(self, update: MapUpdate) -> None:
        self._stamps.add(update.frame.stamp)
        self._sizes.add((update.frame.image.shape[1], update.frame.image.shape[0]))
        for stage, spent in update.seconds.items():
            self._seconds[stage] = self._seconds.get(stage, 0.0) + spent
        if update.keyframes:
            current = {keyframe.index: keyframe for keyframe in update.keyframes}
            for index in sorted(set(self._open) - set(current)):
                self._settle(self._open.pop(index))
            self._open.update(current)

    def finish(self) -> None:
        """Write all the rest. Raises NothingMappedError if there is no map."""
        for index in sorted(self._open):
            self._settle(self._open[index])
        self._rescale()
        keyframes, trajectory, cloud = self._mapper.keyframes, self._mapper.trajectory(), self._mapper.cloud()
        if not self.frames:
            raise NothingMappedError(f"{self.name}: not one frame could be used: give images of at least 32x32 pixels, in order of time")
        if not keyframes:
            raise NothingMappedError(
                f"{self.name}: no map came of {self.frames} frames: the camera must move sideways past something with texture "
                "(or start where it does)"
            )
        if not trajectory:
            raise NothingMappedError(
                f"{self.name}: the camera was not found in the map in any of {self.frames} frames: is it this place's?"
            )
        elapsed = time.perf_counter() - self._started
        write_tum(self.folder / "trajectory.tum", trajectory)
        write_ply(self.folder / "map.ply", cloud)
        positions = np.array([pose[:3, 3] for _, pose in trajectory]).reshape(-1, 3)
        write_glb(self.folder / "map.glb", cloud, keyframes, positions)
        poses = {keyframe.index: keyframe.pose for keyframe in keyframes}
        entries = [
            {**entry, "pose": np.round(poses[index], DECIMALS).tolist()} for index, entry in sorted(self._cameras.items()) if index in poses
        ]
        _json(
            self.folder / "cameras.json", {"depth_unit": f"1/{MILLI:g} map unit", "pose": "camera to world, OpenCV axes", "images": entries}
        )
        summary = self._summary(len(keyframes), len(cloud), elapsed)
        _json(self.folder / "summary.json", summary)
        write_report(self.folder / "report.html", Report(self.name, summary, cloud, trajectory, keyframes, self._chosen_strips()))

    def _settle(self, keyframe: Keyframe) -> None:
        """A keyframe's depth is final: into its file, in the camera's own pixels."""
        depth, confidence = depth_image(keyframe)
        units = np.where(confidence >= self._mapper.config.map.min_confidence, np.rint(depth * MILLI), 0)
        stamp = f"{keyframe.stamp // 10**9}.{keyframe.stamp % 10**9:09d}"
        name = f"{stamp}.png"
        others = (entry["depth"] for index, entry in self._cameras.items() if index != keyframe.index)
        if f"depth/{name}" in others:  # of a keyframe of a saved map, at the same time
            name = f"{stamp}_{keyframe.index}.png"
        _write_depth(self.folder / "depth" / name, units)
        self._unit_when_written[keyframe.index] = self._mapper.unit(keyframe.index)
        self._cameras[keyframe.index] = {
            "index": keyframe.index,
            "stamp": stamp,
            "depth": f"depth/{name}",
            "camera": {
                key: round(value, DECIMALS) if isinstance(value, float) else value for key, value in asdict(keyframe.source).items()
            },
        }
        self._strips.append(Strip(keyframe.index, stamp, keyframe.image, keyframe.depth, keyframe.confidence))
        if len(self._strips) > 4 * STRIPS:  # a long run shows a few of many
            self._strips = self._strips[::2]

    def _rescale(self) -> None:
        """Depths that were written before a loop was closed get the size that their keyframe has now."""
        for index, unit in self._unit_when_written.items():
            larger = self._mapper.unit(index) / unit
            if abs(larger - 1.0) > 1e-3:
                file = self.folder / self._cameras[index]["depth"]
                units = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
                assert units is not None
                _write_depth(file, np.rint(units * larger))

    def _chosen_strips(self) -> list[Strip]:
        count = len(self._strips)
        return [self._strips[at] for at in sorted({round(k) for k in np.linspace(0, count - 1, min(STRIPS, count))})]

    def _summary(self, keyframes: int, points: int, elapsed: float) -> dict[str, Any]:
        scale = self._mapper.scale
        return {
            "name": self.name,
            "frames": self.frames,
            "frames_with_pose": len(self._stamps & {stamp for stamp, _ in self._mapper.trajectory()}),
            "keyframes": keyframes,
            "map_points": points,
            "pieces": list(self._mapper.pieces),
            "image_sizes": sorted(f"{width}x{height}" for width, height in self._sizes),
            "model": self._mapper.estimator.name,
            "scale_source": scale.source,
            "scale_uncertainty": round(scale.uncertainty, 4) if scale.is_metric else None,
            "unit": "metres" if scale.is_metric else "the median depth of the first keyframe is 1",
            "seconds": round(elapsed, 3),
            "frames_per_second": round(self.frames / max(elapsed, 1e-9), 2),
            "seconds_per_stage": {stage: round(spent, 3) for stage, spent in self._seconds.items()},
            "settings": settings(self._mapper.config),
            "dust3r_ros": __version__,
            "python": platform.python_version(),
        }


def _refuse_foreign(folder: Path) -> None:
    """The whole folder is replaced at the end: it must be new, empty, or what an earlier run left."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file: give a folder to write")
    names = {path.name for path in folder.iterdir()}
    foreign = sorted(names - OURS) if names >= ALWAYS else sorted(names)
    if foreign:
        raise OutputError(
            f"{folder} holds something else, {foreign[0]}, which would be replaced: "
            "give a folder that is new, empty, or from an earlier run"
        )
    if folder.is_mount():
        raise OutputError(f"{folder} is a disk of its own, which cannot be replaced as a whole: give a folder in it")
    if folder == Path.cwd().resolve():
        raise OutputError(f"{folder} is the folder you are in, which would be replaced: give another one")


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _write_depth(file: Path, units: NDArray[Any]) -> None:
    """16-bit PNG; what does not fit is unknown."""
    written, data = cv2.imencode(".png", np.where(units < 65536, units, 0).astype(np.uint16))
    assert written
    file.write_bytes(data.tobytes())
