"""What the generated scenes are made of: every setting with its default, its unit and its range. A recipe's YAML maps onto these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from dust3r_ros.errors import Dust3rError

KINDS = ("room", "corridor", "table", "street", "terrain")
SPLITS = ("train", "held_out")


class SceneError(Dust3rError):
    """A setting or a file that no scene can be made of."""


@dataclass(frozen=True)
class CameraEffects:
    """How far a picture is from the light that fell in; 0 switches an effect off, 1 is about a cheap camera, 2 a bad one."""

    exposure: float = 1.0  # spread of the exposure: stops, standard deviation 0.5
    white_balance: float = 1.0  # gain of red and blue, standard deviation 10 %
    vignetting: float = 1.0  # loss in the corners, up to 40 %
    noise: float = 1.0  # shot and read noise
    blur: float = 1.0  # defocus and motion, up to 1.5 pixels of radius or 4 of length
    jpeg: float = 1.0  # share of pictures that were JPEG once: 60 %, quality 30 to 95

    def __post_init__(self) -> None:
        for setting in fields(self):
            _in_range(f"effects.{setting.name}", getattr(self, setting.name), 0.0, 4.0)


@dataclass(frozen=True)
class SceneConfig:
    """What is in the scenes."""

    weights: Mapping[str, float] = field(default_factory=lambda: {"room": 4, "corridor": 2, "table": 2, "street": 2, "terrain": 0.5})
    layer_size: int = 256  # texels along the edge of a texture layer; a power of two, 64 to 1024
    noise_layers: int = 24  # layers of multi-scale noise
    pattern_layers: int = 48  # bricks, tiles, checks, stripes, boards, windows, writing
    photo_layers: int = 48  # crops of photographs; 0 for none
    photos: Path | None = None  # a folder of pictures; None takes scikit-image's own where it is installed
    meshes: Path | None = None  # a folder of OBJ, GLB, PLY or STL; None for no meshes
    mesh_triangles: int = 128  # at the most, of a mesh; every ray meets every triangle of its scene
    mesh_share: float = 0.25  # of the scenes, those with a mesh, where a folder is given

    def __post_init__(self) -> None:
        unknown = set(self.weights) - set(KINDS)
        if unknown:
            raise SceneError(f"weights names {sorted(unknown)[0]!r}, which is no kind of scene: take {', '.join(KINDS)}")
        if any(weight < 0 for weight in self.weights.values()) or sum(self.weights.values()) <= 0:
            raise SceneError(f"weights is {dict(self.weights)}: give no negative one, and at least one above 0")
        if self.layer_size not in (64, 128, 256, 512, 1024):
            raise SceneError(f"layer_size is {self.layer_size}: take a power of two from 64 to 1024")
        _in_range("noise_layers", self.noise_layers, 4, 512)
        _in_range("pattern_layers", self.pattern_layers, 8, 512)
        _in_range("photo_layers", self.photo_layers, 0, 4096)
        _in_range("mesh_triangles", self.mesh_triangles, 4, 4096)
        _in_range("mesh_share", self.mesh_share, 0.0, 1.0)


@dataclass(frozen=True)
class PairsConfig:
    """What a batch of pairs is."""

    width: int = 224  # pixels
    height: int = 160  # pixels
    pairs: int = 16  # pairs of a batch
    pairs_per_scene: int = 2  # these share their first view, seen by another camera each; 1 for scenes of their own
    overlap: tuple[float, float] = (0.2, 1.0)  # drawn uniformly; share of a view's valid pixels that the other sees too, the lesser of both
    field_of_view: tuple[float, float] = (40.0, 110.0)  # degrees across the wider side
    same_camera: float = 0.7  # share of the pairs whose views are one camera's: the same field of view and principal point
    candidates: int = 20  # second views that are tried for each scene
    scene: SceneConfig = field(default_factory=SceneConfig)
    effects: CameraEffects = field(default_factory=CameraEffects)
    compile: bool = False  # torch.compile the ray caster and the shading, but for hills

    def __post_init__(self) -> None:
        _in_range("width", self.width, 16, 4096)
        _in_range("height", self.height, 16, 4096)
        _in_range("pairs", self.pairs, 1, 65536)
        _in_range("pairs_per_scene", self.pairs_per_scene, 1, 8)
        _in_range("candidates", self.candidates, 2 * self.pairs_per_scene, 256)
        _in_range("same_camera", self.same_camera, 0.0, 1.0)
        _ordered("overlap", self.overlap, 0.05, 1.0)
        _ordered("field_of_view", self.field_of_view, 10.0, 130.0)

    @property
    def scenes(self) -> int:
        """Scenes of a batch."""
        return -(-self.pairs // self.pairs_per_scene)


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SceneError(f"{name} is {value}: take {low} to {high}")


def _ordered(name: str, values: tuple[float, float], low: float, high: float) -> None:
    if len(values) != 2 or not low <= values[0] <= values[1] <= high:
        raise SceneError(f"{name} is {tuple(values)}: take two values, the lesser first, from {low} to {high}")
