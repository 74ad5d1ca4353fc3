"""Numbers in, a scale out: right within its own uncertainty, and none where nothing is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry import Camera
from dust3r_ros.mapping import DepthError, ScaleError, depth_of_ranges
from dust3r_ros.mapping.config import ScaleConfig
from dust3r_ros.mapping.scale.ground_plane import ground_plane, up_of_pitch
from dust3r_ros.mapping.scale.metric_scale import scale_of_depths, scale_of_ratios
from dust3r_ros.mapping.scale.odometry_windows import OdometryWindows
from dust3r_ros.mapping.scale.scale_estimator import ScaleEstimator
from dust3r_ros.mapping.scale.scale_fusion import SourceScale, fused

SECOND = 1_000_000_000


def lengths(rng: np.random.Generator, count: int, noise: float, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    metric = rng.uniform(0.25, 0.5, count)
    return metric * np.exp(noise * rng.normal(size=count)), metric / scale


def test_the_scale_is_found_and_its_uncertainty_is_true() -> None:
    """Over many draws the error is as large as it is said to be."""
    normalised = []
    for seed in range(200):
        found = scale_of_ratios(*lengths(np.random.default_rng(seed), 30, 0.05))
        assert found is not None
        normalised.append(math.log(found.scale / 3.0) / found.uncertainty)
    assert 0.7 < np.sqrt(np.mean(np.square(normalised))) < 1.5


@pytest.mark.parametrize("wrong", [0.1, 0.3])
def test_slipping_wheels_do_not_change_it(wrong: float) -> None:
    rng = np.random.default_rng(1)
    metric, mapped = lengths(rng, 40, 0.03)
    spun = rng.choice(40, int(wrong * 40), replace=False)
    metric[spun] *= rng.uniform(2, 10, len(spun))
    mapped[spun[:2]] = 0.0  # did not move at all
    found = scale_of_ratios(metric, mapped)
    assert found is not None
    assert found.scale == pytest.approx(3.0, rel=0.02)
    assert found.samples <= 40 - len(spun)


def test_where_half_contradicts_the_other_half_it_is_not_sure() -> None:
    metric, mapped = lengths(np.random.default_rng(2), 40, 0.02)
    metric[::2] *= 2.0
    found = scale_of_ratios(metric, mapped)
    assert found is not None
    assert found.uncertainty > 0.05


def test_a_drifting_scale_is_less_sure_than_noise_of_the_same_size() -> None:
    rng = np.random.default_rng(3)
    drift = 0.05 * np.sin(np.linspace(0, 2 * np.pi, 60))
    smooth, shuffled = scale_of_ratios(np.exp(drift), np.ones(60)), scale_of_ratios(np.exp(rng.permutation(drift)), np.ones(60))
    assert smooth is not None
    assert shuffled is not None
    assert smooth.uncertainty > 2 * shuffled.uncertainty


def test_of_nothing_nothing_is_said() -> None:
    assert scale_of_ratios(np.zeros(0), np.zeros(0)) is None
    assert scale_of_ratios(np.array([1.0, np.nan, 0.0]), np.ones(3)) is None
    assert scale_of_depths(np.zeros(9), np.ones(9)) is None


def test_depths_side_by_side_agree_on_the_median() -> None:
    rng = np.random.default_rng(4)
    mapped = rng.uniform(0.5, 2.0, 300)
    metric = 2.5 * mapped * (1 + 0.03 * rng.normal(size=300))
    metric[:90] *= 3.0  # something stands before the sensor
    metric[90:120] = 0.0
    found = scale_of_depths(metric, mapped)
    assert found is not None
    assert found[0] == pytest.approx(2.5, rel=0.03)


# ---- odometry ------------------------------------------------------------------------------------------------------------------------


def walk(count: int, step: float, turn: float = 0.0) -> np.ndarray:
    """[count, 4, 4] poses: so many metres along z and radians about y a frame."""
    one = np.eye(4)
    one[:3, :3], one[2, 3] = Rotation.from_euler("y", turn).as_matrix(), step
    return np.stack([np.linalg.matrix_power(one, k) for k in range(count)])


def windows_of(poses: np.ndarray, rate: int = 10, offset: int = 0) -> OdometryWindows:
    """Keyframes at 5 Hz, odometry at `rate` Hz whose stamps lie `offset` ns beside theirs and whose poses are true at them."""
    windows = OdometryWindows()
    for k in range(len(poses)):
        windows.keyframe(k, k * SECOND // 5)
    stamps = np.arange(0, (len(poses) - 1) * SECOND // 5 + 1, SECOND // rate) + offset
    at = stamps / (SECOND // 5)
    for stamp, k in zip(stamps, at, strict=True):
        low = min(int(k), len(poses) - 2)
        share = k - low
        windows.add(int(stamp), (1 - share) * poses[low][:3, 3] + share * poses[low + 1][:3, 3])
    return windows


@pytest.mark.parametrize("offset", [0, 13_000_000])
def test_readings_between_the_images_are_interpolated(offset: int) -> None:
    poses = walk(41, 0.1)
    metric, mapped = windows_of(poses, rate=50, offset=offset).lengths(dict(enumerate(poses)))
    assert len(metric) >= 12
    np.testing.assert_allclose(metric, mapped, rtol=1e-6)


def test_readings_may_come_after_the_keyframes_or_stop() -> None:
    poses = dict(enumerate(walk(41, 0.1)))
    windows = OdometryWindows()
    for k in poses:
        windows.keyframe(k, k * SECOND // 5)
    assert not len(windows.lengths(poses)[0])
    for k in range(20):
        windows.add(k * SECOND // 5, poses[k][:3, 3])
    assert len(windows.lengths(poses)[0]) == 6
    windows.add(30 * SECOND, poses[40][:3, 3])  # nothing for 26 s: no straight line joins that
    assert len(windows.lengths(poses)[0]) == 6


def estimator(poses: np.ndarray, odometry: np.ndarray, **changes: object) -> ScaleEstimator:
    """One that has seen the keyframes of `poses` (map units) with `odometry` (metres)."""
    from dust3r_ros.mapping import Keyframe

    camera = Camera.from_fov(40, 30, 60.0)
    empty, one = np.zeros((30, 40), np.float32), np.ones((30, 40), np.float32)
    image = np.zeros((30, 40, 3), np.uint8)
    keeper = ScaleEstimator(ScaleConfig(**changes))  # type: ignore[arg-type]
    for k in range(len(poses)):
        keeper.add_odometry(k * SECOND, odometry[k])
    for k in range(1, len(poses)):
        keyframes = [Keyframe(n, n * SECOND, poses[n], camera, camera, image, empty, one) for n in (k - 1, k)]
        keeper.observe(keyframes, [], dict(enumerate(poses[: k + 1])), {})
    return keeper


def moved(poses: np.ndarray, scale: float, rng: np.random.Generator, jitter: float = 0.0) -> np.ndarray:
    found = poses.copy()
    found[:, :3, 3] = found[:, :3, 3] * scale + jitter * rng.normal(size=(len(poses), 3))
    return found


def test_wheels_make_the_map_metric_and_say_so() -> None:
    poses = walk(40, 0.3)
    keeper = estimator(moved(poses, 1 / 2.5, np.random.default_rng(0), 0.002), poses)
    assert keeper.scale.source == "odometry"
    assert 0.01 <= keeper.scale.uncertainty < 0.05
    assert keeper.take_factor() == pytest.approx(2.5, rel=0.02)
    assert keeper.take_factor() is None


@pytest.mark.parametrize(
    ("step", "turn", "why"), [(0.0, 0.3, "it turns on the spot"), (0.0, 0.0, "it stands"), (0.3, 0.0, "the source is none")]
)
def test_no_scale_is_claimed_where_there_is_none(step: float, turn: float, why: str) -> None:
    rng = np.random.default_rng(5)
    poses = walk(60, step, turn)
    source = "none" if step else "auto"
    keeper = estimator(moved(poses, 0.4, rng, 0.002), moved(poses, 1.0, rng, 0.005), source=source)
    assert keeper.take_factor() is None, why
    assert keeper.scale.source == "none"
    assert math.isnan(keeper.scale.uncertainty)


def test_nor_before_the_way_is_long_enough() -> None:
    poses = walk(20, 0.3)
    assert estimator(poses, poses).scale.is_metric
    assert not estimator(poses, poses, min_path=8.0).scale.is_metric


def test_odometry_that_has_nothing_to_do_with_the_map_is_not_believed() -> None:
    rng = np.random.default_rng(6)
    poses, other = walk(60, 0.3), walk(60, 0.3)
    poses[:, :3, 3] = rng.normal(size=(60, 3)) * rng.lognormal(0, 1.0, (60, 1))
    assert not estimator(poses, other).scale.is_metric


def test_nonsense_is_refused_by_name() -> None:
    keeper = ScaleEstimator(ScaleConfig())
    with pytest.raises(ScaleError, match="no pose"):
        keeper.add_odometry(0, np.full((4, 4), np.nan))
    with pytest.raises(DepthError, match="floating-point metres"):
        keeper.add_depth(0, np.zeros((4, 4), np.uint16))  # type: ignore[arg-type]
    with pytest.raises(ScaleError, match="'up'"):
        keeper.set_up([0, 0, 0])


# ---- several sources -----------------------------------------------------------------------------------------------------------------


def test_sources_that_agree_are_weighted_by_their_certainty() -> None:
    found = fused({"odometry": SourceScale(0.0, 0.01), "network": SourceScale(0.1, 0.03)})
    assert found is not None
    assert not found.contradicting
    assert abs(found.log_scale) < 0.005
    assert found.scale.uncertainty < math.hypot(0.01, 0.01)
    assert found.scale.source == "odometry"  # the network hardly counts


def test_one_that_contradicts_the_others_is_left_out_and_named() -> None:
    found = fused({"odometry": SourceScale(0.5, 0.002), "depth": SourceScale(0.0, 0.003), "height": SourceScale(0.01, 0.01)})
    assert found is not None
    assert found.contradicting == ("odometry",)
    assert found.scale.source == "depth+height"
    assert abs(found.log_scale) < 0.01


# ---- ground --------------------------------------------------------------------------------------------------------------------------


def scenery(rng: np.random.Generator, height: float, pitch: float, floor: int = 1500, table: int = 300, wall: int = 600) -> np.ndarray:
    """Points in the camera's frame: a floor, a table 0.7 of the height above it, a wall ahead."""
    down = -up_of_pitch(pitch)
    right = np.array([1.0, 0.0, 0.0])
    ahead = np.cross(right, down)

    def plane(count: int, low: float, high: float, near: float, far: float) -> np.ndarray:
        share = rng.uniform(size=(count, 3))
        return (
            (2 * share[:, :1] - 1) * 1.5 * right
            + (low + (high - low) * share[:, 1:2]) * down
            + (near + (far - near) * share[:, 2:]) * ahead
        )

    level = [plane(floor, height, height, 1.0, 5.0), plane(table, 0.3 * height, 0.3 * height, 1.5, 2.5)]
    points = np.concatenate([*level, plane(wall, -1.0, height, 5.0, 5.0)])
    return points * (1 + 0.003 * rng.normal(size=(len(points), 1)))


def test_the_floor_is_found_under_a_table_and_before_a_wall() -> None:
    for seed in range(5):
        points = scenery(np.random.default_rng(seed), 1.2, 0.3)
        found = ground_plane(points, up_of_pitch(0.3 + 0.05), seed)  # the mounting is known to a few degrees
        assert found is not None
        assert found.height == pytest.approx(1.2, rel=0.02)
        assert math.degrees(math.acos(min(1.0, float(found.normal @ up_of_pitch(0.3))))) < 1.0


def test_a_table_with_the_floor_in_sight_is_no_ground() -> None:
    points = scenery(np.random.default_rng(0), 1.2, 0.3, floor=150, table=1500)
    found = ground_plane(points, up_of_pitch(0.3))
    assert found is None or found.height == pytest.approx(1.2, rel=0.03)


def test_a_wall_and_a_view_of_nothing_have_no_ground() -> None:
    rng = np.random.default_rng(0)
    assert ground_plane(scenery(rng, 1.2, 0.0, floor=1, table=1), up_of_pitch(0.0)) is None
    assert ground_plane(np.zeros((0, 3)), up_of_pitch(0.0)) is None
    assert ground_plane(np.full((50, 3), np.nan), up_of_pitch(0.0)) is None


def test_a_range_is_not_a_depth() -> None:
    """It is measured along the ray; a depth along the camera's axis."""
    camera = Camera.from_fov(200, 100, 90.0)
    depth = depth_of_ranges(camera, [(99.5, 49.5), (199.0, 49.5)], [2.0, 2.0])
    assert depth.max() == pytest.approx(2.0, rel=1e-3)
    assert depth[:, 199].max() == pytest.approx(2.0 / math.sqrt(2), rel=0.01)
    with pytest.raises(DepthError, match="outside"):
        depth_of_ranges(camera, [(200, 3)], [1.0])
