"""CUDA sources to machine code for one kind of GPU, through NVRTC: no nvcc, no driver, no list of architectures. Kept on disk.

NVIDIA's `cuda-core` brings the compiler as a wheel; it compiles for GPUs that are not there, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from dust3r_ros.kernels.errors import KernelError

log = logging.getLogger(__name__)

STANDARD = "c++17"
DIGEST_BYTES = 32


def source_folder() -> Path:
    """Where the .cu files lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    for folder in (package / "cuda", package.parents[1] / "kernels"):
        if (folder / "rope_2d.cu").exists():
            return folder
    raise KernelError(f"no CUDA sources in {package / 'cuda'} or {package.parents[1] / 'kernels'}: install the package anew")


def source(name: str) -> str:
    """The text of `name`.cu with its own headers put in."""
    folder = source_folder()
    text = (folder / f"{name}.cu").read_text()
    for header in sorted(folder.glob("*.cuh")):
        text = text.replace(f'#include "{header.name}"', header.read_text().replace("#pragma once", ""))
    return text


def compile_cubin(name: str, architecture: str, defines: Mapping[str, int | str] | None = None) -> bytes:
    """Machine code of `name`.cu for an architecture as 'sm_90', from the cache or compiled now.

    Raises KernelError with the compiler's first words, or what to install. A cache that cannot be written or was damaged is no error.
    """
    text, defines = source(name), dict(sorted((defines or {}).items()))
    file = cache_folder() / f"{name}-{architecture}-{_key(text, architecture, defines)}.cubin"
    kept = _read(file)
    if kept is None:
        kept = _compile(name, text, architecture, defines)
        _write(file, kept)
    return kept


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dust3r_ros" / "kernels"


def _key(text: str, architecture: str, defines: Mapping[str, int | str]) -> str:
    return hashlib.sha256(repr((text, architecture, sorted(defines.items()), STANDARD, compiler_version())).encode()).hexdigest()[:24]


@lru_cache(maxsize=1)
def compiler_version() -> str:
    """NVRTC's version. Raises KernelError where it is not installed."""
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise KernelError(f"compiling kernels needs NVIDIA's compiler as a wheel: pip install 'cuda-core[cu13]' ({error})") from error
    _, major, minor = nvrtc.nvrtcVersion()
    return f"{major}.{minor}"


def _compile(name: str, text: str, architecture: str, defines: Mapping[str, int | str]) -> bytes:
    compiler_version()
    from cuda.core import Program, ProgramOptions

    macros = [(key, str(value)) for key, value in defines.items()] or None
    options = ProgramOptions(arch=architecture, std=STANDARD, define_macro=macros)
    try:
        return bytes(Program(text, code_type="c++", options=options).compile("cubin").code)
    except Exception as error:  # cuda-core has several kinds of errors for what the compiler says
        words = " ".join(str(error).split())[:300]
        raise KernelError(f"kernel {name} cannot be compiled for {architecture}: {words}") from error


def _read(file: Path) -> bytes | None:
    """The code behind its digest; None if there is none, or it was damaged."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    digest, code = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    return code if code and hashlib.sha256(code).digest() == digest else None


def _write(file: Path, code: bytes) -> None:
    """In one step: two processes may compile at once."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(hashlib.sha256(code).digest() + code)
            Path(temporary).replace(file)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        log.info("kernels are compiled anew each time: %s cannot be written (%s)", file.parent, error)
