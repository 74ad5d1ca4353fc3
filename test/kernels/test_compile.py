"""Every kernel, for every architecture, without a GPU; the cache of compiled code; and the kernels' arithmetic on a CPU."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.on_host import needs_compiler, on_host

from dust3r_ros.kernels import KernelError, alignment, compiler, nearest, nearest_3d, operations, pack_points, twins
from dust3r_ros.network.blocks import rope_2d

Search = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
ARCHITECTURES = ("sm_87", "sm_89", "sm_90", "sm_100", "sm_120")  # Orin, Ada, Hopper, Blackwell twice
VARIANTS: list[tuple[str, dict[str, int | str]]] = [
    *(("rope_2d", {"ELEMENT": element}) for element in operations.ELEMENTS.values()),
    ("pack_points", {}),
    *(("nearest", {"WIDTH": width, "THREADS": operations.NEAREST_THREADS}) for width in (3, 24, operations.WIDEST)),
    ("alignment", {"THREADS": alignment.THREADS}),
    ("dense_depths", {"THREADS": alignment.THREADS}),
]
FUNCTIONS = {"alignment": (b"fit_depths", b"linearise", b"eliminate_depths")}  # of sources that are not named after their only one


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "dust3r_ros" / "kernels"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("name", "defines"), VARIANTS, ids=[f"{name}-{'-'.join(map(str, d.values()))}" for name, d in VARIANTS])
def test_every_kernel_compiles_for_every_gpu(name: str, defines: dict[str, int | str], architecture: str, cache: Path) -> None:
    code = compiler.compile_cubin(name, architecture, defines)
    assert code.startswith(b"\x7fELF")
    assert all(function in code for function in FUNCTIONS.get(name, (name.encode(),)))
    assert [file.name.startswith(f"{name}-{architecture}-") for file in cache.iterdir()] == [True]


def test_every_source_is_among_them() -> None:
    assert {file.stem for file in compiler.source_folder().glob("*.cu")} == {name for name, _ in VARIANTS}


def test_compiled_once_then_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = compiler.compile_cubin("pack_points", "sm_90")
    (file,) = cache.iterdir()
    monkeypatch.setattr(compiler, "_compile", lambda *_: pytest.fail("compiled again"))
    assert compiler.compile_cubin("pack_points", "sm_90") == code
    assert list(cache.iterdir()) == [file]


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_entry_is_compiled_anew(damage: bytes | None, cache: Path) -> None:
    code = compiler.compile_cubin("pack_points", "sm_90")
    (file,) = cache.iterdir()
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(bytes(content) if damage is None else damage)
    assert compiler.compile_cubin("pack_points", "sm_90") == code
    assert file.read_bytes()[compiler.DIGEST_BYTES :] == code


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compiler.compile_cubin("pack_points", "sm_90").startswith(b"\x7fELF")


@pytest.mark.parametrize(
    ("name", "architecture", "defines", "words"),
    [("rope_2d", "sm_90", {"ELEMENT": 8}, "kernel rope_2d cannot be compiled for sm_90"), ("pack_points", "sm_12", {}, "for sm_12")],
)
def test_what_the_compiler_says_is_one_line(name: str, architecture: str, defines: dict[str, int | str], words: str, cache: Path) -> None:
    with pytest.raises(KernelError, match=words) as refused:
        compiler.compile_cubin(name, architecture, defines)
    assert "\n" not in str(refused.value)
    assert not cache.exists() or not list(cache.iterdir())


def test_a_kernel_that_fails_is_said_once_and_torch_goes_on(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a GPU and without the compiler."""
    monkeypatch.setattr(operations, "_broken", set())

    class OnGpu(torch.Tensor):
        is_cuda = True

    def broken() -> int:
        raise KernelError("no compiler")

    with caplog.at_level(logging.WARNING):
        answers = [operations.either("pack", broken, lambda: 7, True, torch.zeros(1).as_subclass(OnGpu)) for _ in range(3)]
    assert answers == [7, 7, 7]
    assert len(caplog.records) == 1
    assert "torch does its work: no compiler" in caplog.records[0].getMessage()


# ---- the same sources on a CPU ---------------------------------------------------------------------------------------------------------

WRAPPERS = {
    "rope_2d": """extern "C" void host(
        element* q, long long qb, long long qh, long long qn, const float* qc, const float* qs, int nq,
        element* k, long long kb, long long kh, long long kn, const float* kc, const float* ks, int nk, int b, int h, int d, int blocks) {
      run(rope_2d, blocks, 2, 32, q, qb, qh, qn, qc, qs, nq, k, kb, kh, kn, kc, ks, nk, b, h, d); }""",
    "pack_points": """extern "C" void host(
        const float* p, const unsigned char* c, const float* s, const float* m, unsigned* o, long long n) {
      run(pack_points, (n + 31) / 32, 1, 32, p, c, s, m, o, n); }""",
    "nearest": """extern "C" void host(const float* q, const float* k, const float* b, long long* f, long long n, long long m) {
      run(nearest, (n + THREADS - 1) / THREADS, 1, THREADS, q, k, b, f, n, m); }
    extern "C" void host_3d(const float* q, const float* k, const float* b, long long* f, long long n, long long m) {
      run(nearest_3d, (n + THREADS - 1) / THREADS, 1, THREADS, q, k, b, f, n, m); }""",
}


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rotations_arithmetic(dtype: torch.dtype, tmp_path: Path) -> None:
    host = on_host("rope_2d", tmp_path, WRAPPERS["rope_2d"], ELEMENT=operations.ELEMENTS[dtype]).host
    generator = torch.Generator().manual_seed(0)
    batch, heads, dim, grid_q, grid_k = 2, 3, 16, (3, 4), (2, 5)
    packed = torch.randn(batch, 12, 3, heads, dim, generator=generator).to(dtype)
    q = packed.permute(2, 0, 3, 1, 4)[0]
    k = torch.randn(batch, heads, 10, dim, generator=generator).to(dtype)
    rotations = [rope_2d(*grid, dim, 100.0, torch.device("cpu")) for grid in (grid_q, grid_k)]
    expected = [twins.rotate(x, *rotation) for x, rotation in zip((q, k), rotations, strict=True)]
    arguments: list[object] = []
    for x, rotation in zip((q, k), rotations, strict=True):
        arguments += [pointer(x), *map(ctypes.c_longlong, x.stride()[:3]), *map(pointer, rotation), ctypes.c_int(x.shape[2])]
    host(*arguments, batch, heads, dim, -(-batch * heads * 12 * (dim // 4) // 32))
    step = 1e-6 if dtype == torch.float32 else 2**-7  # fused or not, a sum may round to the next bfloat16
    for got, truth in zip((q, k), expected, strict=True):
        torch.testing.assert_close(got, truth, atol=step, rtol=step)
        assert dtype == torch.float32 or (got != truth).float().mean() < 0.01


@needs_compiler
def test_the_packings_bytes(tmp_path: Path) -> None:
    host = on_host("pack_points", tmp_path, WRAPPERS["pack_points"]).host
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.normal(0, 5, (77, 3)).astype(np.float32))
    colors, confidence = torch.from_numpy(rng.integers(0, 256, (77, 3), dtype=np.uint8)), torch.rand(77)
    out, move = torch.zeros(77, 20, dtype=torch.uint8), torch.eye(4)[:3].contiguous()
    host(*map(pointer, (points, colors, confidence, move, out)), ctypes.c_longlong(77))
    assert torch.equal(out, pack_points(points, colors, confidence))


@needs_compiler
@pytest.mark.parametrize(("width", "function", "search"), [(24, "host", nearest), (3, "host_3d", nearest_3d)])
def test_the_searchs_answers(width: int, function: str, search: Search, tmp_path: Path) -> None:
    host = getattr(on_host("nearest", tmp_path, WRAPPERS["nearest"], WIDTH=width, THREADS=8), function)
    generator = torch.Generator().manual_seed(width)
    queries, keys = (torch.randn(count, width, generator=generator) for count in (21, 53))
    if width > 3:
        keys[40] = keys[7]  # of equals the first
    queries[3] = keys[7] * (10 if width > 3 else 1)
    found = torch.full((21,), -1, dtype=torch.int64)
    host(pointer(queries), pointer(keys), None, pointer(found), ctypes.c_longlong(21), ctypes.c_longlong(53))
    assert torch.equal(found, search(queries, keys))
    assert int(found[3]) == 7


# ---- on a GPU --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", operations.ELEMENTS)
def test_each_kernel_is_its_twin_on_a_gpu(dtype: torch.dtype) -> None:
    operations._broken.clear()
    cuda = torch.device("cuda")
    with torch.inference_mode():
        q, k = torch.randn(2, 12, 768, 64, device=cuda).to(dtype), torch.randn(2, 12, 576, 64, device=cuda).to(dtype)
        rotations = rope_2d(24, 32, 64, 100.0, cuda), rope_2d(18, 32, 64, 100.0, cuda)
        expected = [twins.rotate(x, *rotation) for x, rotation in zip((q, k), rotations, strict=True)]
        for got, truth in zip(operations.rotate_pair(q, k, *rotations), expected, strict=True):
            torch.testing.assert_close(got, truth)
        points, colors = torch.randn(9999, 3, device=cuda), torch.randint(0, 256, (9999, 3), device=cuda, dtype=torch.uint8)
        assert torch.equal(pack_points(points, colors, points[:, 0]), twins.pack_points(points, colors, points[:, 0]))
        queries, keys = torch.randn(3000, 24, device=cuda), torch.randn(5000, 24, device=cuda)
        assert (nearest(queries, keys) == twins.nearest(queries.cpu(), keys.cpu()).cuda()).float().mean() > 0.999
        assert torch.equal(nearest_3d(queries[:, :3], keys[:, :3]).cpu(), twins.nearest_3d(queries[:, :3], keys[:, :3]).cpu())
    assert not operations._broken
