"""A map in one file: tensors and JSON in a zip, versioned and checksummed, written atomically.

The archive holds `map.json` (format, version, keyframes, edges, SHA-256 of every other member) and one `.npy` member an array. Version 2
adds the links between keyframes, each keyframe's own frame and units, and with which keyframe every point moves; version 3 the camera's
readout and the pieces that were not joined to the map, each as a map of its own (`pieces/0/...`).
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment import Link
from dust3r_ros.errors import Dust3rError
from dust3r_ros.geometry import Camera, Similarity
from dust3r_ros.io.atomic import atomic_file
from dust3r_ros.io.map_members import ChecksumError, MapMembers
from dust3r_ros.mapping.storage.disk_shelf import StorageError
from dust3r_ros.mapping.storage.keyframe_sequence import KeyframeSequence
from dust3r_ros.mapping.types import Keyframe, MapSnapshot, PointCloud

log = logging.getLogger(__name__)

FORMAT, VERSION, OLDEST = "dust3r_ros map", 3, 1
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same map makes the same file


class MapFileError(Dust3rError):
    """A file that is no map, or not one that this version can read."""


def save_map(path: Path | str, snapshot: MapSnapshot) -> None:
    """Write a map, one keyframe at a time; a file that was there before is replaced only by a whole new one. Raises OutputError."""
    with atomic_file(Path(path)) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        digests: dict[str, str] = {}
        about = {"format": FORMAT, "version": VERSION, **_written(archive, snapshot, "", digests), "sha256": digests}
        _write(archive, "map.json", json.dumps(about, indent=1).encode())


def _written(archive: zipfile.ZipFile, snapshot: MapSnapshot, prefix: str, digests: dict[str, str]) -> dict[str, Any]:
    """The arrays of a map and its pieces into the archive, their checksums into `digests`; what is said of them in words."""
    keyframes: list[dict[str, Any]] = []
    for name, array in _arrays(snapshot, keyframes):
        data = _npy(array)
        digests[f"{prefix}{name}.npy"] = hashlib.sha256(data).hexdigest()
        _write(archive, f"{prefix}{name}.npy", data)
    pieces = [_written(archive, piece, f"{prefix}pieces/{n}/", digests) for n, piece in enumerate(snapshot.pieces)]
    return {**_about_map(snapshot, keyframes), "pieces": pieces}


def _arrays(snapshot: MapSnapshot, keyframes: list[dict[str, Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Names and arrays of all that a map is; of each keyframe on the way what is said in words."""
    yield "cloud/points", snapshot.cloud.points
    yield "cloud/colors", snapshot.cloud.colors
    yield "cloud/confidence", snapshot.cloud.confidence
    yield from _held_together(snapshot).items()
    for at in range(len(snapshot.keyframes)):
        try:
            keyframe = snapshot.keyframes[at]
        except StorageError as error:
            log.warning("a keyframe is saved without its picture: %s", error)
            continue
        name = f"keyframes/{keyframe.index}"
        yield f"{name}/image", keyframe.image
        yield f"{name}/depth", keyframe.depth
        yield f"{name}/confidence", keyframe.confidence
        keyframes.append(
            {
                "index": keyframe.index,
                "stamp": keyframe.stamp,
                "pose": keyframe.pose.tolist(),
                "source": asdict(keyframe.source),
                "camera": asdict(keyframe.camera),
                **({"name": keyframe.name} if keyframe.name else {}),
            }
        )


def _about_map(snapshot: MapSnapshot, keyframes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "scale_source": snapshot.scale_source,
        "scale_uncertainty": snapshot.scale_uncertainty if math.isfinite(snapshot.scale_uncertainty) else None,
        "voxel_size": snapshot.voxel_size,
        "readout": snapshot.readout,
        "keyframes": keyframes,
        "edges": [list(edge) for edge in snapshot.edges],
        "window": list(snapshot.window),
    }


def load_map(path: Path | str, in_memory: bool = True) -> MapSnapshot:
    """Read a map. Raises MapFileError for a file that is missing, foreign, newer than this version or damaged.

    `in_memory`: False: keyframes are read from the file, which stays open, whenever they are asked for; StorageError if it is gone then.
    """
    path = Path(path)
    if not path.is_file():
        raise MapFileError(f"map {path} does not exist: give a file written by ~/save_map")
    archive = None
    try:
        archive = zipfile.ZipFile(path)
        about = _about(path, archive)
        members = MapMembers(path, archive, about["sha256"], in_memory)
        snapshot = _snapshot(about, members, "", about["version"], in_memory)
    except Exception as error:
        if archive is not None:
            archive.close()
        raise _refusal(path, error) from error
    if in_memory:
        archive.close()
    return snapshot


def _refusal(path: Path, error: Exception) -> MapFileError:
    if isinstance(error, MapFileError):
        return error
    if isinstance(error, ChecksumError):
        return MapFileError(f"map {path} is damaged: {error}; save it again")
    if isinstance(error, zipfile.BadZipFile):
        return MapFileError(f"map {path} is not a dust3r_ros map or was cut short: {error}; save it again")
    if isinstance(error, OSError):
        return MapFileError(f"map {path} cannot be read: {error.strerror or error}; see to its permissions and its disk")
    if isinstance(error, MemoryError):
        return MapFileError(f"map {path} does not fit into memory: close other programs, or localise in it, which reads what it needs")
    return MapFileError(f"map {path} is damaged ({type(error).__name__}: {error}): save it again")


def version_of(path: Path | str) -> int:
    """Of a file that `load_map` reads."""
    with zipfile.ZipFile(path) as archive:
        return int(_about(Path(path), archive)["version"])


def _about(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    if "map.json" not in archive.namelist():
        raise MapFileError(f"map {path} is not a dust3r_ros map: it has no map.json")
    about = json.loads(archive.read("map.json"))
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise MapFileError(f"map {path} is not a dust3r_ros map: its map.json says something else")
    version = about.get("version")
    if not isinstance(version, int) or not OLDEST <= version <= VERSION:
        raise MapFileError(f"map {path} has version {version}, this program reads versions {OLDEST} to {VERSION}: update dust3r_ros")
    return about


def _snapshot(about: dict[str, Any], members: MapMembers, prefix: str, version: int, in_memory: bool) -> MapSnapshot:
    entries = about["keyframes"]
    missing = [name for entry in entries for name in _arrays_of(entry, prefix) if name not in members]
    if missing:
        raise KeyError(missing[0])
    lazily = KeyframeSequence(range(len(entries)), lambda n: _keyframe(entries[n], members, prefix))
    keyframes = tuple(lazily) if in_memory else lazily
    cloud = PointCloud(*(members[f"{prefix}cloud/{name}.npy"] for name in ("points", "colors", "confidence")))
    edges = tuple((int(i), int(j)) for i, j in about["edges"])
    said = about.get("scale_uncertainty")
    uncertainty = math.nan if said is None else float(said)
    snapshot = MapSnapshot(keyframes, edges, cloud, tuple(about["window"]), str(about["scale_source"]), uncertainty)
    pieces = tuple(_snapshot(one, members, f"{prefix}pieces/{n}/", version, in_memory) for n, one in enumerate(about.get("pieces", ())))
    snapshot = replace(snapshot, voxel_size=float(about.get("voxel_size", 0.0)), readout=float(about.get("readout", 0.0)), pieces=pieces)
    return snapshot if version == 1 else _with_links(snapshot, members, prefix)


def _arrays_of(entry: dict[str, Any], prefix: str) -> list[str]:
    return [f"{prefix}keyframes/{entry['index']}/{name}.npy" for name in ("image", "depth", "confidence")]


def _keyframe(entry: dict[str, Any], members: MapMembers, prefix: str) -> Keyframe:
    image, depth, confidence = (members[name] for name in _arrays_of(entry, prefix))
    return Keyframe(
        index=int(entry["index"]),
        stamp=int(entry["stamp"]),
        pose=np.array(entry["pose"], np.float64),
        source=_camera(entry["source"]),
        camera=_camera(entry["camera"]),
        image=image,
        depth=depth,
        confidence=confidence,
        name=str(entry.get("name", "")),
    )


def _held_together(snapshot: MapSnapshot) -> dict[str, NDArray[Any]]:
    """What holds it together: since version 2."""
    links, frames = snapshot.links, sorted(snapshot.frames.items())
    arrays: dict[str, NDArray[Any]] = {
        "links/ends": np.array([(link.i, link.j) for link in links], np.int32).reshape(-1, 2),
        "links/relative": _matrices([link.relative for link in links]),
        "links/information": np.array([link.information for link in links], np.float64).reshape(-1, 7, 7),
        "links/loop": np.array([link.loop for link in links], np.bool_),
        "links/depth": np.array([link.depth for link in links], np.float64),
        "frames/index": np.array([index for index, _ in frames], np.int32),
        "frames/similarity": _matrices([frame for _, frame in frames]),
    }
    if snapshot.owners is not None:
        arrays["cloud/owners"] = snapshot.owners.astype(np.int32)
    return arrays


def _with_links(snapshot: MapSnapshot, members: MapMembers, prefix: str) -> MapSnapshot:
    index, similarities = members[f"{prefix}frames/index.npy"], members[f"{prefix}frames/similarity.npy"]
    frames = {int(n): Similarity.from_matrix(matrix) for n, matrix in zip(index, similarities, strict=True)}
    columns = [members[f"{prefix}links/{name}.npy"] for name in ("ends", "relative", "information", "loop", "depth")]
    links = tuple(
        Link(int(ends[0]), int(ends[1]), Similarity.from_matrix(relative), information, bool(loop), float(depth))
        for ends, relative, information, loop, depth in zip(*columns, strict=True)
    )
    owners = members[name] if (name := f"{prefix}cloud/owners.npy") in members else None
    missing = {n for link in links for n in (link.i, link.j)} - set(frames)
    if missing:
        raise ValueError(f"links of keyframes {sorted(missing)}, which have no frame")
    if any(link.information.shape != (7, 7) for link in links) or (owners is not None and len(owners) != len(snapshot.cloud)):
        raise ValueError("arrays whose sizes do not go together")
    return replace(snapshot, links=links, frames=frames, owners=owners)


def _matrices(similarities: list[Similarity]) -> NDArray[np.float64]:
    """[N, 4, 4]"""
    return np.array([similarity.matrix for similarity in similarities], np.float64).reshape(-1, 4, 4)


def _camera(entry: dict[str, Any]) -> Camera:
    return Camera(**{**entry, "distortion": tuple(entry["distortion"])})


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED, compresslevel=3)
