"""CUDA sources compiled for the CPU (test/kernels/host.h)."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from dust3r_ros.kernels import compiler
from dust3r_ros.kernels.launch import Argument, _plain

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def on_host(name: str, folder: Path, wrappers: str, **defines: int) -> ctypes.CDLL:
    """`name`.cu with C functions around its kernels."""
    source, library = folder / f"{name}.cpp", folder / f"{name}.so"
    shim = (Path(__file__).parents[1] / "kernels" / "host.h").read_text()
    source.write_text("\n".join([shim, compiler.source(name), wrappers]))
    flags = [f"-D{key}={value}" for key, value in defines.items()]
    command = ["g++", "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", *flags, str(source), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and ("barrier" in done.stderr or "c++20" in done.stderr):
        pytest.skip("this g++ is older than C++20")
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


class HostLaunch:
    """In the place of `launch`: the same call, on the CPU. What each argument goes as is checked against the source."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[str] = []
        self._libraries: dict[str, ctypes.CDLL] = {}

    def __call__(
        self,
        file: str,
        function: str,
        grid: tuple[int, int],
        threads: int,
        arguments: list[Argument],
        defines: Mapping[str, int] | None = None,
    ) -> None:
        kernels = dict(re.findall(r'extern "C" __global__ void (\w+)\((.*?)\) \{', compiler.source(file), re.DOTALL))
        types = [re.sub(r"\s*\w+$", "", parameter.strip()) for parameter in kernels[function].split(",")]
        assert len(types) == len(arguments)
        plain = [_as(kind, argument) for kind, argument in zip(types, arguments, strict=True)]
        if file not in self._libraries:
            wrappers = []
            for name, parameters in kernels.items():
                names = ", ".join(re.findall(r"(\w+)\s*(?:,|$)", parameters))
                body = f"{{ run({name}, across, down, threads, {names}); }}"
                wrappers.append(f'extern "C" void host_{name}(unsigned across, unsigned down, unsigned threads, {parameters}) {body}')
            self._libraries[file] = on_host(file, self.folder, "\n".join(wrappers), **(defines or {}))
        self.started.append(function)
        getattr(self._libraries[file], f"host_{function}")(*grid, threads, *plain)


def _as(kind: str, argument: Argument) -> object:
    plain = _plain(argument)
    if isinstance(argument, torch.Tensor):
        types = {"float": torch.float32, "double": torch.float64, "long long": torch.int64}
        assert kind.endswith("*")
        assert types[kind.removeprefix("const ").rstrip("*")] == argument.dtype
        assert argument.is_contiguous()
        return ctypes.c_void_p(plain)
    if isinstance(plain, int):
        assert kind == "long long"
        return ctypes.c_longlong(plain)
    assert isinstance(plain, {"int": ctypes.c_int32, "float": ctypes.c_float, "double": ctypes.c_double}[kind])
    return plain
