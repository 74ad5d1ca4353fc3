"""One checkpoint of a training run: everything that it takes to go on as if nothing had happened. Written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dust3r_ros.io.atomic import atomic_file
from dust3r_ros.training.errors import TrainingError

FORMAT, VERSION = "dust3r_ros training checkpoint", 1
WORDS = {"step": int, "first_step": int, "pairs": int, "minutes": float, "recipe": dict, "network": dict, "checksum": str}


class CheckpointRefusedError(TrainingError):
    """A file that is no checkpoint of ours, or is damaged."""


@dataclass(frozen=True, eq=False)
class TrainingCheckpoint:
    """A run after `step` steps."""

    step: int
    first_step: int  # where the optimiser started anew: its warm-up counts from there
    pairs: int  # seen so far, in all runs
    minutes: float  # of training so far, in all runs
    recipe: Mapping[str, Any]
    network: Mapping[str, Any]  # the words of its configuration, as in config.json
    tensors: dict[str, Tensor] = field(default_factory=dict)  # weights/, average/, optimiser/, random/, records/

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix`/, without it."""
        return {name.removeprefix(f"{prefix}/"): value for name, value in self.tensors.items() if name.startswith(f"{prefix}/")}


def write_checkpoint(checkpoint: TrainingCheckpoint, path: Path) -> None:
    """Raises OutputError where it cannot be written; what was at `path` stands then."""
    from safetensors.torch import save

    tensors = {name: value.detach().to("cpu").contiguous() for name, value in checkpoint.tensors.items()}
    words = {key: getattr(checkpoint, key) for key in WORDS if key != "checksum"}
    words |= {"format": FORMAT, "version": VERSION, "checksum": digest(tensors)}
    content = save(tensors, metadata={"checkpoint": json.dumps(words)})
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    _flush_folder(path.parent)


def read_checkpoint(path: Path) -> TrainingCheckpoint:
    """Raises CheckpointRefusedError that names the file for one that is missing, cut short, altered, or none of ours."""
    try:
        words, tensors = _opened(path)
    except CheckpointRefusedError:
        raise
    except FileNotFoundError as error:
        raise CheckpointRefusedError(f"checkpoint {path}: there is no such file; give one of the folder 'checkpoints' of a run") from error
    except Exception as error:  # safetensors and JSON raise many kinds for what is damaged
        reason = " ".join(str(error).split())[:120]
        raise CheckpointRefusedError(
            f"checkpoint {path}: damaged, cut short or no safetensors file ({reason}); go on from an older one, or '--resume auto'"
        ) from error
    if digest(tensors) != words["checksum"]:
        raise CheckpointRefusedError(
            f"checkpoint {path}: its content is not what was written (the checksum differs); go on from an older one, or '--resume auto'"
        )
    return TrainingCheckpoint(**{key: words[key] for key in WORDS if key != "checksum"}, tensors=tensors)


def _opened(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import safe_open

    if not path.is_file():
        raise FileNotFoundError(path)
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("checkpoint")
        if text is None:
            raise CheckpointRefusedError(
                f"checkpoint {path}: it holds weights at the most, and no training run; start from it with '--weights', not '--resume'"
            )
        words = json.loads(text)
        if words.get("format") != FORMAT or words.get("version") != VERSION:
            raise CheckpointRefusedError(
                f"checkpoint {path}: it is a '{words.get('format')}' of version {words.get('version')}, and this is version {VERSION} of "
                f"'{FORMAT}'; go on with the release that wrote it, or start from its exported weights"
            )
        words.setdefault("pairs", _pairs_by_recipe(words))
        for key, kind in WORDS.items():
            if not isinstance(words.get(key), kind):
                raise CheckpointRefusedError(f"checkpoint {path}: its header says {key} {words.get(key)!r}, no {kind.__name__}: damaged")
        return words, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping of its own)


def _pairs_by_recipe(words: Mapping[str, Any]) -> int:
    """What the first checkpoints did not say: right where all steps were of one size."""
    match words:
        case {"step": int(steps), "recipe": {"data": {"batch": int(batch), "accumulate": int(accumulate)}}}:
            return steps * batch * accumulate
    return 0


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, kinds, shapes and values."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _flush_folder(folder: Path) -> None:
    """The new name too survives a power cut, where folders can be flushed."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
