"""The alignment's kernels are their twins: their sources on a CPU, started by the wrappers that start them on a GPU; and on a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from support.on_host import HostLaunch, needs_compiler

from dust3r_ros.kernels import KernelError, alignment, operations
from dust3r_ros.kernels import alignment_twins as twins
from dust3r_ros.kernels.alignment import Scene, Sides

N, S, E = 3, 37, 5
NOBODY = 7  # a pixel that no pair knows
ROUNDS = torch.tensor([[0.1, 0.0], [0.03, 0.0], [0.015, 0.5], [7e-3, 0.6], [3e-3, 0.6], [1e-3, 0.6]]) ** torch.tensor([2.0, 1.0])
close = torch.testing.assert_close


def problem(device: str = "cpu", count: int = S) -> tuple[Sides, Scene, torch.Tensor]:
    """Three images, five pairs, one image with a side less than another."""
    rng = np.random.default_rng(0)
    ends = [(0, 1), (1, 0), (1, 2), (2, 0), (2, 1)]
    seen = [[e for e, pair in enumerate(ends) if n in pair] for n in range(N)]
    start = np.concatenate([[0], np.cumsum([len(own) for own in seen])])
    total = int(start[-1])
    weight = rng.random((total, count)) * (rng.random((total, count)) > 0.2)
    weight[:, NOBODY] = 0.0
    turns = Rotation.random(N, random_state=rng).as_matrix().reshape(N, 9)
    cameras = np.concatenate([turns, rng.normal(size=(N, 3)), 60 + 30 * rng.random((N, 1))], axis=1)
    own = turns[[0, 1, 1, 2, 2]] * (0.5 + rng.random((E, 1)))
    points = rng.normal(size=(total, 3, count)) + np.array([[0.0], [0.0], [3.0]])
    values = (start, np.repeat(np.arange(N), np.diff(start)), np.concatenate(seen), points, weight, 30 * rng.normal(size=(N, 2, count)))
    sides = Sides(*(torch.as_tensor(value, device=device) for value in values))
    scene = Scene(*(torch.as_tensor(value, device=device) for value in (cameras, np.concatenate([own, rng.normal(size=(E, 3))], axis=1))))
    return sides, scene, torch.as_tensor(2 + rng.random((N, count)), device=device)


def image(device: str = "cpu", height: int = 9, width: int = 13) -> dict[str, object]:
    """Five sides of one image; not finite points and confidences, and a pixel that nobody knows, among them."""
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.arange(width) - 6) / 10, (torch.arange(height) - 4) / 10
    true = 1 + torch.rand(height, width, generator=generator)
    plain = torch.stack([true * u, true * v[:, None], true], -1)
    points, confidences = [], []
    for k in range(5):
        confidence = 1 + 20 * torch.rand(height, width, generator=generator) * (torch.rand(height, width, generator=generator) > 0.2)
        confidence[0, 3] = 1.0
        noisy = plain * (1 + 0.1 * torch.randn(height, width, 1, generator=generator)) + 0.01 * torch.randn(
            plain.shape, generator=generator
        )
        if k == 0:
            noisy[0, 5, 0], noisy[0, 6, 1], confidence[0, 8], confidence[1, 1] = torch.nan, torch.inf, torch.nan, torch.inf
        points.append(noisy.to(device))
        confidences.append(confidence.to(device))
    transforms = torch.eye(3, 4).repeat(5, 1, 1) + 0.02 * torch.randn(5, 3, 4, generator=generator)
    rays = u.to(device), v.to(device)
    named = {"points": points, "confidences": confidences, "transforms": transforms.to(device), "rays": rays, "rounds": ROUNDS}
    return {**named, "known": 1 + 1e-6}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostLaunch:
    start = HostLaunch(tmp_path)
    monkeypatch.setattr(alignment, "launch", start)
    monkeypatch.setattr(alignment, "THREADS", 8)
    monkeypatch.setattr(alignment, "either", lambda _, kernel, *__: kernel())
    return start


def compare_depths(device: str = "cpu", count: int = S) -> None:
    sides, scene, depth = problem(device, count)
    before = depth.clone()
    for anew, rounds in ((False, 3), (True, 0), (True, 3)):
        got, cost = alignment.fit_depths(sides, scene, depth, 0.05, rounds, anew)
        wanted, wanted_cost = twins.fit_depths(sides, scene, depth, 0.05, rounds, anew)
        known = torch.arange(count) != NOBODY
        close(got[:, known], wanted[:, known], rtol=1e-9, atol=0.0)
        close(cost, wanted_cost, rtol=1e-9, atol=0.0)
        assert got.isfinite().all()
        again = alignment.fit_depths(sides, scene, depth, 0.05, rounds, anew)
        assert torch.equal(again[0], got)
        assert torch.equal(again[1], cost)
    assert torch.equal(depth, before)


def compare_second_order(device: str = "cpu", count: int = S) -> None:
    sides, scene, depth = problem(device, count)
    for alpha in (0.0, 0.7):
        got = alignment.linearise(sides, scene, depth, 0.05, alpha)
        wanted = twins.linearise(sides, scene, depth, 0.05, alpha)
        for name, found, truth in zip(("products", "gradient", "shared", "slope"), got, wanted, strict=True):
            exact = (1e-5, 1e-6) if name == "shared" else (1e-9, 1e-10)
            close(found, truth, rtol=exact[0], atol=exact[1], msg=lambda text, name=name: f"{name}: {text}")
        assert all(torch.equal(a, b) for a, b in zip(got, alignment.linearise(sides, scene, depth, 0.05, alpha), strict=True))


def compare_dense(device: str = "cpu", height: int = 9, width: int = 13) -> None:
    given = image(device, height, width)
    depth, most, cost = alignment.dense_depths(**given)  # type: ignore[arg-type]
    wanted = twins.dense_depths(**given)  # type: ignore[arg-type]
    # Where two depths cost nearly the same, rounding decides.
    assert float(((depth - wanted[0]).abs() > 1e-4 * (1 + wanted[0])).float().mean()) <= (0 if device == "cpu" else 1e-3)
    close(most, wanted[1])
    close(cost, wanted[2], rtol=1e-5, atol=1e-6)
    assert depth[0, 3] == 0
    assert depth.isfinite().all()


@needs_compiler
def test_depths(host: HostLaunch) -> None:
    compare_depths()
    assert set(host.started) == {"fit_depths"}


@needs_compiler
def test_second_order(host: HostLaunch) -> None:
    compare_second_order()
    assert set(host.started) == {"linearise", "eliminate_depths"}


@needs_compiler
def test_dense_depths(host: HostLaunch) -> None:
    compare_dense()
    assert set(host.started) == {"dense_depths"}


@needs_compiler
def test_what_nobody_knows_weighs_nothing(host: HostLaunch) -> None:
    sides, scene, depth = problem()
    sides = replace(sides, weight=torch.zeros_like(sides.weight))
    fitted, cost = alignment.fit_depths(sides, scene, depth, 0.05, 3, True)
    assert fitted.isfinite().all()
    assert not cost.any()
    assert not any(values.any() for values in alignment.linearise(sides, scene, depth, 0.05, 0.5))
    assert len(host.started) == 3


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    sides, scene, depth = problem()
    with pytest.raises(KernelError, match=r"points \(10, 3, 37\) torch.float64: give \(10, 3, 36\)"):
        alignment.fit_depths(sides, scene, depth[:, 1:], 0.05, 3, False)
    with pytest.raises(KernelError, match=r"cameras .* float64"):
        alignment.linearise(sides, replace(scene, cameras=scene.cameras.float()), depth, 0.05, 0.5)
    given = image()
    with pytest.raises(KernelError, match="5 pointmaps and 4 confidences"):
        alignment.dense_depths(**{**given, "confidences": given["confidences"][1:]})  # type: ignore[arg-type, index]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_each_kernel_is_its_twin_on_a_gpu() -> None:
    operations._broken.clear()
    compare_depths("cuda", 1200)
    compare_second_order("cuda", 1200)
    compare_dense("cuda", 384, 512)
    assert not operations._broken
