"""COLMAP's text model: cameras.txt, images.txt, points3D.txt (colmap.github.io/format.html), for tools that start from known poses.

Poses there are world to camera, as a quaternion (w first) and a translation; pixel centres lie at halves. Pictures are named by their
stamps, STAMP.png (of a rig CAMERA/STAMP.png), and have the size of the camera that took them. Up to 50,000 points that several
keyframes see have tracks (`colmap_tracks`); the others, of a dense map, have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dust3r_ros.geometry import Camera, inverse_pose, quaternion_from_matrix
from dust3r_ros.io.atomic import OutputError, atomic_folder
from dust3r_ros.io.colmap_tracks import Observations, observations
from dust3r_ros.mapping.types import Keyframe, PointCloud

FILES = {"cameras.txt", "images.txt", "points3D.txt"}


def write_colmap(folder: Path, keyframes: Sequence[Keyframe], cloud: PointCloud) -> None:
    """Replaces the folder as a whole. Raises OutputError, also for a folder that holds anything but such a model."""
    folder = folder.expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or not {path.name for path in folder.iterdir()} <= FILES):
        raise OutputError(f"{folder} holds something else, which would be replaced: give a folder that is new, empty, or such a model")
    cameras: dict[tuple[str, int, int, tuple[float, ...]], int] = {}
    of_keyframe = [cameras.setdefault(colmap_camera(keyframe.source), len(cameras) + 1) for keyframe in keyframes]
    seen = observations(cloud.points, keyframes)
    order = np.argsort(seen.point, kind="stable")  # by point; a picture's own are in the order in which they are listed
    within = np.arange(len(seen)) - np.searchsorted(seen.keyframe, seen.keyframe)  # an observation's place in its picture's list
    starts = np.searchsorted(seen.point[order], np.arange(len(cloud) + 1))
    with atomic_folder(folder) as temporary:
        lines = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"]
        lines += [
            f"{number} {model} {width} {height} {' '.join(map(repr, values))}" for (model, width, height, values), number in cameras.items()
        ]
        (temporary / "cameras.txt").write_text("\n".join(lines) + "\n")
        (temporary / "images.txt").write_text("\n".join(_images(keyframes, of_keyframe, seen)) + "\n")
        with (temporary / "points3D.txt").open("w") as file:
            file.write("# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[]\n")
            for row, (point, color) in enumerate(zip(cloud.points.tolist(), cloud.colors.tolist(), strict=True)):
                track = order[starts[row] : starts[row + 1]]
                error = float(seen.error[track].mean()) if len(track) else 0.0
                ends = "".join(f" {seen.keyframe[n] + 1} {within[n]}" for n in track)
                file.write("{} {:.7g} {:.7g} {:.7g} {} {} {}".format(row + 1, *point, *color) + f" {error:.4g}{ends}\n")


def colmap_camera(camera: Camera) -> tuple[str, int, int, tuple[float, ...]]:
    """Model, width, height and parameters."""
    pinhole = (camera.fx, camera.fy, camera.cx + 0.5, camera.cy + 0.5)
    if camera.model == "equidistant":
        return "OPENCV_FISHEYE", camera.width, camera.height, (*pinhole, *camera.distortion)
    if camera.is_pinhole:
        return "PINHOLE", camera.width, camera.height, pinhole
    lens = (*camera.distortion, *[0.0] * (8 - len(camera.distortion)))
    if not any(lens[4:]):
        return "OPENCV", camera.width, camera.height, (*pinhole, *lens[:4])
    return "FULL_OPENCV", camera.width, camera.height, (*pinhole, *lens)


def _images(keyframes: Sequence[Keyframe], cameras: Sequence[int], seen: Observations) -> Iterator[str]:
    yield "# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME"
    yield "# POINTS2D[] as (X, Y, POINT3D_ID)"
    for number, (keyframe, camera) in enumerate(zip(keyframes, cameras, strict=True), start=1):
        to_camera = inverse_pose(keyframe.pose)
        x, y, z, w = quaternion_from_matrix(to_camera[:3, :3])
        numbers = " ".join(f"{value:.12g}" for value in np.array([w, x, y, z, *to_camera[:3, 3]]))
        stamp = f"{keyframe.stamp // 10**9}.{keyframe.stamp % 10**9:09d}"
        yield f"{number} {numbers} {camera} {keyframe.name}{'/' if keyframe.name else ''}{stamp}.png"
        mine = slice(*np.searchsorted(seen.keyframe, [number - 1, number]))
        pixels, points = seen.pixel[mine] + 0.5, seen.point[mine] + 1
        yield " ".join(f"{u:.6g} {v:.6g} {point}" for (u, v), point in zip(pixels.tolist(), points.tolist(), strict=True))
