"""What an act of the demo came to: its pictures, its map, its figures as a file and on the screen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dust3r_ros.demo.inputs import TrueView
from dust3r_ros.demo.measure import DepthScore, PathScore
from dust3r_ros.demo.pictures import depth_strip, path_from_above
from dust3r_ros.demo.recording import Recording
from dust3r_ros.estimators.choice import Choice
from dust3r_ros.io.point_clouds import write_glb
from dust3r_ros.io.render import View, look_at, render_cloud, standard_views
from dust3r_ros.mapping.types import Keyframe, PointCloud


@dataclass(frozen=True, eq=False)
class Outcome:
    name: str
    title: str
    images: int
    recording: Recording
    depth: DepthScore
    path: PathScore | None
    complaints: list[str]

    def figures(self) -> dict[str, Any]:
        """As they go into `summary.json`."""
        recording, path = self.recording, self.path
        return {
            "images": self.images,
            "images_handled": recording.frames,
            "images_overtaken": self.images - recording.frames,
            "images_with_pose": len(recording.trajectory),
            "keyframes": len(recording.keyframes),
            "map_points": 0 if recording.cloud is None else len(recording.cloud),
            "frames_per_second": round(recording.rate, 2),
            "seconds_per_stage": {stage: round(spent, 4) for stage, spent in recording.seconds.items()},
            "depth_images": self.depth.images,
            "depth_abs_rel": round(self.depth.abs_rel, 4),
            "depth_median_rel": round(self.depth.median_rel, 4),
            "depth_coverage": round(self.depth.coverage, 4),
            "ate_rmse_m": None if path is None else round(path.rmse, 4),
            "ate_percent_of_extent": None if path is None else round(path.percent, 3),
            "path_extent_m": None if path is None else round(path.extent, 3),
            "complaints": self.complaints,
        }


def write_pictures(folder: Path, outcome: Outcome, truth: Sequence[TrueView]) -> None:
    """depth.png, path.png where there is a path, cloud_*.png and map.glb."""
    recording = outcome.recording
    depth_strip(folder / "depth.png", recording, truth, outcome.depth)
    if outcome.path is not None:
        path_from_above(folder / "path.png", recording, truth, outcome.path)
    if recording.cloud is None or not recording.trajectory:
        return
    poses = np.array([pose for _, pose in recording.trajectory])
    write_glb(folder / "map.glb", recording.cloud, _keyframes(recording, truth), poses[:, :3, 3])
    for view in standard_views(recording.cloud, poses) if outcome.path is not None else _views_of_pair(recording.cloud, poses):
        picture = render_cloud(recording.cloud, view.pose, fov=60.0 if outcome.path is not None else 46.0, path=poses[:, :3, 3])
        cv2.imwrite(str(folder / f"cloud_{view.name.replace(' ', '_')}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def _keyframes(recording: Recording, truth: Sequence[TrueView]) -> tuple[Keyframe, ...]:
    """The recorded keyframes, with the images and cameras that they were made from."""
    views = {view.stamp: view for view in truth}
    found = []
    for index, (stamp, pose) in enumerate(recording.keyframes):
        view, depth = views.get(stamp), recording.depths.get(stamp)
        if view is not None and depth is not None:
            confidence = recording.confidences.get(stamp, np.ones_like(depth))
            found.append(Keyframe(index, stamp, pose, view.camera, view.camera, view.image, depth, confidence))
    return tuple(found)


def _views_of_pair(cloud: PointCloud, poses: NDArray[np.float64]) -> list[View]:
    """What two images show has no sides: look at it from where they were taken, and from a little left and right of there."""
    eye, centre = poses[:, :3, 3].mean(axis=0), np.median(cloud.points.astype(np.float64), axis=0)
    up, right = -poses[0, :3, 1], poses[0, :3, 0]
    aside = 0.35 * float(np.linalg.norm(centre - eye))
    offsets = {"from the front": 0.0, "from the left": -aside, "from the right": aside}
    return [View(name, look_at(eye + offset * right + 0.2 * abs(offset) * up, centre, up)) for name, offset in offsets.items()]


def write_summary(output: Path, outcomes: Sequence[Outcome], is_offline: bool, choice: Choice) -> None:
    """summary.json: the model, and every measured figure."""
    made = {"run": "offline" if is_offline else "ROS 2", "model": choice.model, "model_reason": choice.reason}
    summary = {**made, **{outcome.name: outcome.figures() for outcome in outcomes}}
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def table_rows(outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
    """What is measured, and a value for each outcome."""
    rows: dict[str, list[str]] = {}
    for outcome in outcomes:
        recording, depth, path = outcome.recording, outcome.depth, outcome.path
        spent = recording.seconds
        growing = sum(spent.get(stage, 0.0) for stage in ("encode", "estimate", "align", "fuse"))
        values = {
            "depth error (mean of |error| / depth)": f"{100 * depth.abs_rel:.1f} %",
            "  its median": f"{100 * depth.median_rel:.1f} %",
            "pixels with confident depth": f"{depth.coverage:.0%}",
            "path error (ATE after Sim3)": "-" if path is None else f"{100 * path.rmse:.2f} cm",
            "  of the path's extent": "-" if path is None else f"{path.percent:.2f} % of {path.extent:.1f} m",
            "images with a pose": f"{len(recording.trajectory)} of {outcome.images}",
            "images overtaken by a newer one": f"{outcome.images - recording.frames}",
            "keyframes": f"{len(recording.keyframes)}",
            "map points": "-" if recording.cloud is None else f"{len(recording.cloud):,}",
            "images a second": f"{recording.rate:.1f}" if outcome.images > 10 else "-",
            "time to track an image": f"{1000 * spent.get('track', 0.0):.0f} ms",
            "time to add a keyframe": f"{1000 * growing:.0f} ms",
        }
        for label, value in values.items():
            rows.setdefault(label, []).append(value)
    return rows


def tell(console: Console, output: Path, outcomes: Sequence[Outcome], seconds: float) -> None:
    """The figures as a table, and where to look."""
    table = Table(title="measured against the truth", title_justify="left")
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.name, justify="right")
    for label, values in table_rows(outcomes).items():
        table.add_row(label, *values)
    console.print(table)
    console.print(f"look at     {output / 'report.html'}", soft_wrap=True)
    for outcome in outcomes:
        console.print(f"{outcome.name:11} {output / outcome.name}/: map.glb, depth.png, cloud_*.png", soft_wrap=True)
    console.print(f"figures     {output / 'summary.json'}", soft_wrap=True)
    console.print(f"done in {seconds:.0f} s")
