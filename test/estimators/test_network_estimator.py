"""NetworkEstimator with small networks: the same numbers as the network alone, however they are batched, kept or cut short."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.network_views import CAMERA, EXACT, MATCHED, PAIRS, estimator, image, same, views
from support.networks import DPT, MASTER, SMALL, small_network, small_weights

from dust3r_ros.estimators import Estimator, EstimatorError, PairPrediction, create_estimator
from dust3r_ros.estimators.two_view import NetworkEstimator
from dust3r_ros.estimators.two_view.compilation import Compiled
from dust3r_ros.estimators.two_view.hardware import choose_hardware
from dust3r_ros.geometry import Camera, Rectification
from dust3r_ros.network import NetworkConfig
from dust3r_ros.network.camera_head import CameraHead


@pytest.mark.parametrize("config", [SMALL, DPT, MASTER], ids=["linear", "dpt", "catmlp+dpt"])
def test_predictions_are_the_networks(config: NetworkConfig) -> None:
    own = estimator(config)
    assert isinstance(own, Estimator)
    seen = views(own)
    network = small_network(config)
    for prediction in own.estimate(seen, PAIRS):
        pixels = [torch.from_numpy(seen[k].image).permute(2, 0, 1)[None] / 127.5 - 1 for k in (prediction.i, prediction.j)]
        with torch.inference_mode():
            out = network(*pixels)
        expected = PairPrediction(prediction.i, prediction.j, out.points_1[0], out.points_2[0], out.confidence_1[0], out.confidence_2[0])
        same(prediction, expected)
        assert prediction.points_i.dtype == torch.float32
        assert prediction.descriptors_i is None


def test_descriptors_come_when_asked_for() -> None:
    own = estimator(MASTER)
    (with_,) = own.estimate(views(own, 2), [(0, 1)], descriptors=True)
    assert with_.descriptors_i is not None
    assert with_.descriptors_j is not None
    assert with_.descriptors_i.shape == (48, 64, 6)
    torch.testing.assert_close(with_.descriptors_j.norm(dim=-1), torch.ones(48, 64))
    with pytest.raises(EstimatorError, match="has no descriptors"):
        estimator(DPT).estimate({}, [], descriptors=True)


def test_views_of_other_sizes_and_lenses_in_one_call() -> None:
    own = estimator()
    portrait = Camera(75, 100, 90.0, 90.0, 37.0, 49.5)
    fisheye = Camera(100, 75, 60.0, 60.0, 49.5, 37.0, "equidistant", (0.01, 0.0, 0.0, 0.0))
    seen = {0: own.encode(image(0), CAMERA), 1: own.encode(image(1, portrait), portrait), 2: own.encode(image(2, fisheye), fisheye)}
    assert [seen[k].image.shape for k in range(3)] == [(48, 64, 3), (64, 48, 3), (48, 64, 3)]
    assert seen[2].camera.is_pinhole
    assert seen[2].source == fisheye
    pairs = [(0, 1), (2, 0), (1, 0), (0, 2), (1, 1)]
    for prediction, (i, j) in zip(own.estimate(seen, pairs), pairs, strict=True):
        assert (prediction.i, prediction.j) == (i, j)
        assert prediction.points_i.shape == seen[i].image.shape
        assert prediction.points_j.shape == seen[j].image.shape
    depth = np.ones(seen[2].image.shape[:2], np.float32)
    back = Rectification(fisheye, seen[2].camera).to_source(depth)
    assert back.shape == (75, 100)
    assert back[37, 49] == 1.0


def test_each_image_is_encoded_once_and_its_details_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own = estimator()
    counts = {"encode": 0, "detail": 0}
    for name in counts:
        inner = getattr(own.network, name)

        def counted(*args: object, name: str = name, inner: object = inner) -> object:
            counts[name] += 1
            return inner(*args)  # type: ignore[operator]

        monkeypatch.setattr(own.network, name, counted)
    seen = views(own)
    own.estimate(seen, PAIRS)
    own.estimate(seen, PAIRS)
    assert counts == {"encode": 4, "detail": 8}


def test_the_order_and_the_batch_change_nothing() -> None:
    own = estimator()
    seen = views(own)
    reference = own.estimate(seen, PAIRS)
    for batch in (1, 5, 16):
        own.runner.batch = batch
        for a, b in zip(own.estimate(seen, PAIRS), reference, strict=True):
            same(a, b)
    for a, b in zip(own.estimate(seen, PAIRS[::-1]), reference[::-1], strict=True):
        same(a, b)


def test_both_orders_of_a_pair_share_their_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other they are adjusted once; with another pair between them, each by itself."""
    own = estimator(MATCHED)
    assert own.network.geometry is not None
    rows: list[int] = []

    def counted(encoded: tuple[torch.Tensor, torch.Tensor], *others: object) -> object:
        rows.append(len(encoded[0]))
        return forward(encoded, *others)

    forward = own.network.geometry.forward
    monkeypatch.setattr(own.network.geometry, "forward", counted)
    seen = views(own)
    together = own.estimate(seen, [(0, 1), (1, 0), (1, 2), (2, 1)])
    assert sum(rows) == 2
    rows.clear()
    own.estimate(seen, [(0, 1), (1, 2), (1, 0), (2, 1)])
    assert sum(rows) == 4
    for at, pair in ((0, (0, 1)), (2, (1, 2))):
        same(together[at], own.estimate(seen, [pair])[0], atol=1e-4)
    for prediction in together:
        assert bool(torch.isfinite(prediction.points_j).all())


def test_pairs_tell_of_their_cameras_where_these_are_found_from_matches() -> None:
    """Camera j as the pair has it sees every point of view j at its own pixel; a network without matches tells nothing."""
    own = estimator(MATCHED)
    seen = views(own, 2)
    for prediction in own.estimate(seen, [(0, 1), (1, 0)]):
        motion, camera = prediction.motion, seen[prediction.j].camera
        assert motion is not None
        assert motion.sigma_turn > 0
        assert motion.sigma_move > 0
        points = (prediction.points_j.double().numpy().reshape(-1, 3) - motion.translation) @ motion.rotation
        v, u = np.mgrid[: camera.height, : camera.width]
        np.testing.assert_allclose(camera.project(points), np.stack([u.ravel(), v.ravel()], axis=1), atol=0.05)
    assert estimator(DPT).estimate(views(estimator(DPT), 2), [(0, 1)])[0].motion is None


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_measured_camera_is_the_predictions_and_an_assumed_one_is_not(precision: str) -> None:
    own = estimator(MATCHED, hardware=choose_hardware("cpu", precision))
    beside = replace(CAMERA, cx=45.0, cy=40.0)
    seen = {0: own.encode(image(0), beside), 1: own.encode(image(1), replace(beside, assumed=True))}
    known, unknown = (prediction.points_i for prediction in own.estimate(seen, [(0, 1), (1, 0)]))
    rays = torch.from_numpy(seen[0].camera.rays()).float()
    torch.testing.assert_close(known[..., :2] / known[..., 2:], rays[..., :2], atol=1e-4, rtol=1e-3)
    assert float((unknown[..., :2] / unknown[..., 2:] - rays[..., :2]).abs().max()) > 0.02


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("order", [[(0, 1), (1, 0)], [(0, 1)]], ids=["both orders", "one order"])
def test_cameras_are_adjusted_in_half_precision_too(precision: str, order: list[tuple[int, int]]) -> None:
    own = estimator(MATCHED, hardware=choose_hardware("cpu", precision))
    for prediction in own.estimate(views(own), order):
        for points in (prediction.points_i, prediction.points_j):
            assert points.dtype == torch.float32
            assert bool(torch.isfinite(points).all())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_close_and_its_results_are_float32(precision: str) -> None:
    exact, rough = estimator(), estimator(hardware=choose_hardware("cpu", precision))
    for a, b in zip(exact.estimate(views(exact), PAIRS), rough.estimate(views(rough), PAIRS), strict=True):
        assert b.points_i.dtype == b.confidence_i.dtype == torch.float32
        for name in ("points_i", "points_j"):
            truth = getattr(a, name)
            assert float((getattr(b, name) - truth).norm() / truth.norm()) < 0.03


def test_what_is_not_finite_counts_as_unknown(caplog: pytest.LogCaptureFixture) -> None:
    network = small_network(SMALL)
    with torch.no_grad():
        network.downstream_head1.proj.bias[:768] = 100.0  # expm1 of 173 overflows float32
    own = NetworkEstimator(network, "hot", hardware=EXACT)
    with caplog.at_level(logging.WARNING):
        (prediction,) = own.estimate(views(own, 2), [(0, 1)])
        own.estimate(views(own, 2), [(1, 0)])
    assert bool((prediction.confidence_i == 1).all())
    assert bool((prediction.points_i == 0).all())
    assert bool((prediction.confidence_j > 1).all())
    assert ["not finite" in record.getMessage() for record in caplog.records] == [True]


def test_motion_that_is_not_finite_is_none() -> None:
    network = small_network(MATCHED)
    assert isinstance(network.downstream_head2, CameraHead)
    with torch.no_grad():
        network.downstream_head2.camera.fc2.bias[-3:] = torch.nan
    own = NetworkEstimator(network, "lost", hardware=EXACT)
    assert own.estimate(views(own, 2), [(0, 1)])[0].motion is None


# ---- what is refused, and what is picked ---------------------------------------------------------------------------------------------


def test_wrong_images_pairs_and_sizes() -> None:
    own = estimator()
    seen = views(own, 2)
    for wrong in (
        np.zeros((75, 100, 4), np.uint8),
        np.zeros((75, 100), np.uint8),
        np.zeros((70, 100, 3), np.uint8),
        np.zeros((75, 100, 3)),
    ):
        with pytest.raises(EstimatorError, match="give uint8 RGB of that size"):
            own.encode(wrong, CAMERA)
    with pytest.raises(EstimatorError, match=r"pair \(0, 7\) is not two views"):
        own.estimate(seen, [(0, 7)])
    with pytest.raises(EstimatorError, match="tokens of another estimator"):
        own.estimate({0: replace(seen[0], features=None)}, [])
    with pytest.raises(EstimatorError, match="give at least 32"):
        NetworkEstimator(small_network(), size=20)
    with pytest.raises(EstimatorError, match="less than one patch"):
        own.encode(np.zeros((10, 200, 3), np.uint8), Camera(200, 10, 90, 90, 100, 5))


def test_created_by_its_file(tmp_path: object, caplog: pytest.LogCaptureFixture) -> None:
    path = small_weights(tmp_path)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO):
        own = create_estimator(weights=str(path), device="cpu", precision="float32", size=48)
    assert isinstance(own, NetworkEstimator)
    assert own.size == 48
    assert any("its weights are" in record.getMessage() for record in caplog.records)
    assert any("CPU, float32" in record.getMessage() for record in caplog.records)
    again = create_estimator(weights=str(path), device="cpu", precision="float32", size=48)
    for a, b in zip(own.estimate(views(own), PAIRS), again.estimate(views(own), PAIRS), strict=True):
        same(a, b)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "magic"}, "choose one of auto, flow, dust3r_nano, dust3r_224_linear"),
        ({"model": "flow", "weights": "x.pth"}, "'flow' has none"),
        ({"weights": "/nowhere/x.safetensors"}, "there is no such file"),
        ({"model": "dust3r_512_dpt", "weights": "SMALL"}, "has 'linear', but|for a network with head 'linear'"),
        ({"weights": "SMALL", "precision": "int3"}, "no device or precision is called 'int3'"),
    ],
)
def test_create_refuses_in_one_line(options: dict[str, str], words: str, tmp_path: object) -> None:
    weights = small_weights(tmp_path, SMALL)  # type: ignore[arg-type]
    options = {key: str(weights) if value == "SMALL" else value for key, value in options.items()}
    with pytest.raises(EstimatorError, match=words) as refused:
        create_estimator(**options)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_asked_for_and_absent(tmp_path: object) -> None:
    with pytest.raises(EstimatorError, match=r"estimator\.device is 'cuda', but no CUDA device"):
        create_estimator(weights=str(small_weights(tmp_path)), device="cuda")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("config", [DPT, MATCHED], ids=["dpt", "matched"])
@pytest.mark.parametrize("pairs", [[(0, 1)], [(0, 1), (1, 0)]], ids=["one", "both"])
def test_compiled_gives_the_same(config: NetworkConfig, pairs: list[tuple[int, int]], caplog: pytest.LogCaptureFixture) -> None:
    plain, compiled = estimator(config), estimator(config, compile=True)
    assert isinstance(compiled.runner._encode, Compiled)
    assert isinstance(compiled.runner._decoded, Compiled)
    for a, b in zip(plain.estimate(views(plain, 2), pairs), compiled.estimate(views(compiled, 2), pairs), strict=True):
        same(a, b, atol=1e-4)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
