"""A saved map as files of other programs: what is written is chosen by the name's ending."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dust3r_ros.errors import Dust3rError
from dust3r_ros.io.atomic import atomic_file
from dust3r_ros.io.colmap import write_colmap
from dust3r_ros.io.point_clouds import write_glb, write_ply
from dust3r_ros.io.trajectory import write_tum
from dust3r_ros.mapping.config import MapConfig
from dust3r_ros.mapping.points.saved_map import whole_cloud
from dust3r_ros.mapping.types import MapSnapshot

ENDINGS = (".ply", ".glb", ".tum")


class ExportError(Dust3rError):
    """A map that cannot be written as wanted."""


def export_map(snapshot: MapSnapshot, output: Path, config: MapConfig) -> str:
    """Write the map to `output` and say what was written, in one line.

    .ply: the points; .glb: the points, the keyframes' cameras and their way; .tum: the keyframes' poses; of a rig the way and the poses
    of one camera, that of the first keyframe; a name without ending: a folder
    with COLMAP's text model. What was there before stands until the new one is whole. `config`: voxel size, points at most, confidence at
    least. Raises ExportError for another ending and for a map without keyframes, OutputError where nothing can be written.
    """
    kind = output.suffix.lower()
    if kind and kind not in ENDINGS:
        raise ExportError(f"{output} ends in {kind}: give one of {', '.join(ENDINGS)}, or a folder without an ending for COLMAP")
    if not snapshot.keyframes:
        raise ExportError("a map without keyframes has nothing to export: save the map after its second keyframe")
    cloud = whole_cloud(snapshot, config)
    if not kind:
        write_colmap(output, snapshot.keyframes, cloud)
        return f"{output}: COLMAP's text model of {len(snapshot.keyframes)} pictures and {len(cloud):,} points"
    first = snapshot.keyframes[0].name
    ordered = sorted((one for one in snapshot.keyframes if one.name == first), key=lambda keyframe: keyframe.stamp)
    with atomic_file(output) as temporary:
        if kind == ".ply":
            write_ply(temporary, cloud)
        elif kind == ".glb":
            write_glb(temporary, cloud, snapshot.keyframes, np.stack([keyframe.pose[:3, 3] for keyframe in ordered]))
        else:
            write_tum(temporary, [(keyframe.stamp, keyframe.pose) for keyframe in ordered])
    what = f"{len(ordered)} poses" if kind == ".tum" else f"{len(cloud):,} points"
    return f"{output}: {what}"
