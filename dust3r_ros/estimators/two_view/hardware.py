"""Which device and which precision: what was asked for where it can be had, else a reason."""

from __future__ import annotations

import logging
import platform
from dataclasses import dataclass

import torch

from dust3r_ros.estimators.errors import EstimatorError

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
BFLOAT16_SINCE, FLOAT16_SINCE = (8, 0), (7, 0)  # compute capabilities whose tensor cores have it


@dataclass(frozen=True)
class Hardware:
    """Where the network runs and with which numbers."""

    device: torch.device
    precision: torch.dtype
    text: str  # "NVIDIA H200, bfloat16", for a log line


def choose_hardware(device: str = "auto", precision: str = "auto") -> Hardware:
    """Raises EstimatorError for a device that is not there, or that this PyTorch has no code for."""
    if device not in DEVICES or precision not in PRECISIONS:
        wrong, known = (device, DEVICES) if device not in DEVICES else (precision, PRECISIONS)
        raise EstimatorError(f"no device or precision is called '{wrong}': give one of {', '.join(known)}")
    problem = gpu_problem()
    if device == "cuda" and problem:
        raise EstimatorError(f"estimator.device is 'cuda', but {problem}: set it to 'auto' or 'cpu', or mend that")
    if device == "auto" and problem and torch.cuda.is_available():
        log.warning("the GPU is not used: %s", problem)
    on_gpu = device != "cpu" and not problem
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    best = _best_on_gpu() if on_gpu else _best_on_cpu()
    chosen = best if precision == "auto" else getattr(torch, precision)
    if chosen != torch.float32 and best == torch.float32:
        log.warning("estimator.precision %s: this %s has no arithmetic for it and will be slower than with float32", precision, name)
    return Hardware(torch.device("cuda" if on_gpu else "cpu"), chosen, f"{name}, {str(chosen).removeprefix('torch.')}")


def gpu_problem() -> str:
    """Why the GPU cannot be used; empty if it can."""
    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else " (and this PyTorch is built without CUDA)"
        return f"no CUDA device can be used here{built}"
    major, minor = torch.cuda.get_device_capability()
    if not _runs_on((major, minor), torch.cuda.get_arch_list()):
        return (
            f"{torch.cuda.get_device_name()} (sm_{major}{minor}) is older or newer than what this PyTorch has code for "
            f"({', '.join(torch.cuda.get_arch_list())}); another build of PyTorch may have it"
        )
    return ""


def _runs_on(capability: tuple[int, int], architectures: list[str]) -> bool:
    """Whether code for one of `architectures` runs there: of the same major version and no newer, or PTX for it or older."""
    for name in architectures:
        kind, _, number = name.rstrip("af").partition("_")
        if not number.isdigit():
            continue
        major, minor = int(number[:-1]), int(number[-1])
        if kind == "compute" and (major, minor) <= capability:
            return True
        if kind == "sm" and major == capability[0] and minor <= capability[1]:
            return True
    return False


def _best_on_gpu() -> torch.dtype:
    capability = torch.cuda.get_device_capability()
    if capability >= BFLOAT16_SINCE:
        return torch.bfloat16
    return torch.float16 if capability >= FLOAT16_SINCE else torch.float32


def _best_on_cpu() -> torch.dtype:
    """bfloat16 where the CPU multiplies it itself; elsewhere it is emulated, and slower."""
    if platform.machine() in ("aarch64", "arm64"):
        native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) if torch.backends.mkldnn.is_available() else False
    else:
        native = any(bool(getattr(torch.cpu, name, bool)()) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return torch.bfloat16 if native else torch.float32
