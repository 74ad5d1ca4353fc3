"""A file of weights, opened without running anything in it: its tensors, and what it says of its network."""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dust3r_ros.network.config import NetworkError
from dust3r_ros.network.config_words import words_of_call

SUFFIXES = (".safetensors", ".pth", ".pt")


class CheckpointError(NetworkError):
    """Weights that cannot be read, or that belong to another network."""


@dataclass(frozen=True, eq=False)
class CheckpointFile:
    """Tensors stay on the disk until they are used."""

    path: Path
    tensors: Mapping[str, Tensor]
    words: Mapping[str, Any] | None  # what the file, or config.json beside it, says of the network; None: nothing


def open_checkpoint(path: Path) -> CheckpointFile:
    """A `.safetensors` file (with config.json beside it, or the same in its metadata) or a `.pth` of tensors.

    Raises CheckpointError for a file that is missing, empty, truncated or holds anything that would have to be run.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = _only_one(path)
    if not path.exists():
        raise CheckpointError(f"weights {path}: there is no such file; 'dust3r_ros models list' says what is there")
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"weights {path}: give a file that ends in {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise CheckpointError(f"weights {path}: the file is empty; fetch it again")
    return _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)


def _only_one(folder: Path) -> Path:
    found = sorted(file for suffix in SUFFIXES for file in folder.glob(f"*{suffix}"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise CheckpointError(f"weights {folder}: a folder must hold one file of weights ({names} found); give the file")
    return found[0]


def _safetensors(path: Path) -> CheckpointFile:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise CheckpointError(f"weights {path}: reading them needs safetensors: pip install safetensors") from error
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (mapped, not read; no mapping of its own)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"weights {path}: damaged, cut short or no safetensors file ({_line(error)}); fetch it again") from error
    beside = path.parent / "config.json"
    if beside.exists():
        return CheckpointFile(path, tensors, _json(beside.read_bytes(), str(beside)))
    said = metadata.get("config")
    return CheckpointFile(path, tensors, None if said is None else _json(said, f"the header of {path}"))


def _json(text: str | bytes, source: str) -> Mapping[str, Any]:
    try:
        words = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{source} is no JSON: {_line(error)}") from error
    if not isinstance(words, dict):
        raise CheckpointError(f"{source} holds a {type(words).__name__}: words and their values are expected")
    inner = words.get("model")  # some tools keep the constructor's call
    return words_of_call(inner, source) if isinstance(inner, str) and "head_type" not in words else words


def _pickled(path: Path) -> CheckpointFile:
    """torch.load with weights_only: an unpickler that knows tensors, plain values and argparse.Namespace, and calls nothing else."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"weights {path}: it holds more than tensors and settings, or is damaged, and nothing in it was run "
            f"({_line(error)}); convert it to safetensors where you trust it, or fetch it again"
        ) from error
    except Exception as error:  # torch raises many kinds for what is no checkpoint
        raise CheckpointError(f"weights {path}: damaged, cut short or no PyTorch file ({_line(error)}); fetch it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"weights {path}: it holds a {type(content).__name__}: a dictionary of tensors is expected")
    tensors = content.get("model", content.get("state_dict", content))
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"weights {path}: no dictionary of tensors in it ({', '.join(map(str, list(content)[:5]))})")
    call = getattr(content.get("args"), "model", None)
    return CheckpointFile(path, tensors, words_of_call(call, str(path)) if isinstance(call, str) else None)


def _line(error: BaseException) -> str:
    """The first sentence of an error, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 160 else f"{text[:160]}..."
