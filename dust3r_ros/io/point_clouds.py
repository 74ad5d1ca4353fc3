"""Maps as files that other programs open: PLY and glTF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera
from dust3r_ros.io.render import PATH_COLOR
from dust3r_ros.mapping.types import Keyframe, PointCloud

FRUSTUM_DEPTH = 0.06  # map units: as long as a camera is drawn
# glTF has y up and looks along -z; the world here has y down and looks along z.
GLTF_FROM_WORLD = np.diag([1.0, -1.0, -1.0, 1.0])

_PLY = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1"), ("confidence", "<f4")])


def write_ply(path: Path, cloud: PointCloud) -> None:
    """Binary little-endian PLY: x y z (map units), red green blue, confidence."""
    rows = np.empty(len(cloud), _PLY)
    rows["x"], rows["y"], rows["z"] = cloud.points.T
    rows["red"], rows["green"], rows["blue"] = cloud.colors.T
    rows["confidence"] = cloud.confidence
    kinds = {"<f4": "float", "|u1": "uchar"}
    properties = "".join(f"property {kinds[_PLY[name].str]} {name}\n" for name in _PLY.names or ())
    header = f"ply\nformat binary_little_endian 1.0\ncomment dust3r_ros\nelement vertex {len(cloud)}\n{properties}end_header\n"
    path.write_bytes(header.encode() + rows.tobytes())


def read_ply(path: Path) -> PointCloud:
    """A PLY that `write_ply` wrote."""
    header, body = path.read_bytes().split(b"end_header\n", 1)
    count = next(int(line.split()[-1]) for line in header.decode().splitlines() if line.startswith("element vertex"))
    rows = np.frombuffer(body, _PLY, count)
    points = np.column_stack([rows["x"], rows["y"], rows["z"]]).astype(np.float32)
    colors = np.column_stack([rows["red"], rows["green"], rows["blue"]])
    return PointCloud(points, colors, rows["confidence"].copy())


def write_glb(path: Path, cloud: PointCloud, keyframes: Sequence[Keyframe], positions: NDArray[np.float64]) -> None:
    """Binary glTF, upright: the points, the keyframes' cameras as small pyramids, the way as a line. `positions`: [N, 3] world."""
    import trimesh

    scene = trimesh.Scene()
    if len(cloud):
        alpha = np.full((len(cloud), 1), 255, np.uint8)
        scene.add_geometry(trimesh.PointCloud(cloud.points, np.hstack([cloud.colors, alpha])), geom_name="map", node_name="map")
    lines = [_frustum(keyframe.camera, keyframe.pose) for keyframe in keyframes]
    if len(positions) > 1:
        lines.append(np.stack([positions[:-1], positions[1:]], axis=1))
    if lines:
        segments = np.concatenate(lines)
        drawn = trimesh.path.Path3D(
            entities=[trimesh.path.entities.Line([2 * k, 2 * k + 1]) for k in range(len(segments))],
            vertices=segments.reshape(-1, 3),
            colors=np.tile([*PATH_COLOR, 255], (len(segments), 1)),
            process=False,
        )
        scene.add_geometry(drawn, geom_name="cameras", node_name="cameras")
    scene.apply_transform(GLTF_FROM_WORLD)
    path.write_bytes(scene.export(file_type="glb"))


def _frustum(camera: Camera, pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """[8, 2, 3] segments in the world: from the centre to the corners, and round them."""
    corners = np.array([[0, 0], [camera.width - 1, 0], [camera.width - 1, camera.height - 1], [0, camera.height - 1]], np.float64)
    rays = np.column_stack([(corners - (camera.cx, camera.cy)) / (camera.fx, camera.fy), np.ones(4)]) * FRUSTUM_DEPTH
    ends = rays @ pose[:3, :3].T + pose[:3, 3]
    spokes = np.stack([np.broadcast_to(pose[:3, 3], (4, 3)), ends], axis=1)
    return np.concatenate([spokes, np.stack([ends, np.roll(ends, -1, axis=0)], axis=1)])
