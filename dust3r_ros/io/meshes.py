"""A surface from the map, offline, through Open3D: strays removed, normals turned to the cameras, screened Poisson, thin parts cut.

Kazhdan and Hoppe, Screened Poisson surface reconstruction, 2013.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.errors import Dust3rError
from dust3r_ros.mapping.types import PointCloud

NEIGHBOURS, STRAY = 20, 2.0  # points, and standard deviations of their mean distance beyond which a point is a stray
DEPTH = 9  # of the octree
TRIMMED = 0.08  # share of the vertices with the least support, which Poisson made up


class MeshError(Dust3rError):
    """No mesh can be made."""


def write_mesh(path: Path, cloud: PointCloud, positions: NDArray[np.float64]) -> None:
    """A coloured triangle mesh (PLY) of the map; `positions` [N, 3]: where the cameras were. Raises MeshError, also without Open3D."""
    o3d = load_open3d()
    points, normals = surface_points(cloud, positions)
    if len(points.points) < 100:
        raise MeshError(f"mesh from {len(points.points)} points: too few; record more, or lower map.min_confidence")
    points.normals = normals
    mesh, support = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(points, depth=DEPTH, n_threads=1)
    support = np.asarray(support)
    mesh.remove_vertices_by_mask(support < np.quantile(support, TRIMMED))
    mesh = mesh.crop(points.get_axis_aligned_bounding_box())
    if not o3d.io.write_triangle_mesh(str(path), mesh):
        raise MeshError(f"{path} cannot be written: choose another place, or free some space")


def surface_points(cloud: PointCloud, positions: NDArray[np.float64]) -> tuple[Any, Any]:
    """The cloud without strays as Open3D's, and its unit normals, turned to the nearest camera position."""
    o3d = load_open3d()
    points = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(cloud.points.astype(np.float64)))
    points.colors = o3d.utility.Vector3dVector(cloud.colors / 255.0)
    points, _ = points.remove_statistical_outlier(NEIGHBOURS, STRAY)
    points.estimate_normals(o3d.geometry.KDTreeSearchParamKNN(NEIGHBOURS))
    from scipy.spatial import cKDTree

    place, normals = np.asarray(points.points), np.asarray(points.normals)
    _, nearest = cKDTree(positions).query(place)
    away = np.einsum("ni,ni->n", normals, positions[nearest] - place) < 0
    return points, o3d.utility.Vector3dVector(np.where(away[:, None], -normals, normals))


def load_open3d() -> Any:
    """The module. Raises MeshError where it is not there, or cannot be loaded."""
    try:
        import open3d
    except ModuleNotFoundError as error:
        raise MeshError("a mesh needs Open3D, which is not there: pip install 'dust3r_ros[mesh]'") from error
    except (ImportError, OSError) as error:  # a system library that it wants
        raise MeshError(f"a mesh needs Open3D, which cannot be loaded: {error}; install that library") from error
    return open3d
