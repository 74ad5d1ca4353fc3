"""From a file of weights to a network, or one error that says what does not fit."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dust3r_ros.network.checkpoint_file import CheckpointError, CheckpointFile, open_checkpoint
from dust3r_ros.network.config import PUBLISHED, NetworkConfig, published
from dust3r_ros.network.config_words import config_of_words, words_of_config
from dust3r_ros.network.two_view import TwoViewNetwork

log = logging.getLogger(__name__)

IGNORED = re.compile(r"^prediction_head\.|\.dpt\.act_\d_postprocess\.")  # pretraining's head; parameters that the files name twice
NOT_NEEDED = {"mask_token"}  # pretraining's; inference goes without
NAMED = 4  # keys that an error names
LICENCE = (
    "DUSt3R's and MASt3R's published weights are CC BY-NC-SA 4.0 with the terms of their training data: "
    "not for commercial use; they are no part of this package"
)
FREE = ("Apache-2.0", "MIT", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0")  # those that nobody needs to be warned of
_said_licences: set[str] = set()


def load_network(
    path: Path | str, name: str | None = None, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> TwoViewNetwork:
    """The network whose weights lie at `path`, in evaluation mode; linear and convolution weights as `dtype`, norms in float32.

    `name`: one of the published architectures, needed only where neither the file nor config.json beside it says what it is. Raises
    CheckpointError, naming keys and shapes, for anything that does not fit; nothing half-loaded is ever returned.
    """
    file = open_checkpoint(Path(path))
    config = config_of_file(file, name)
    with torch.device("meta"):
        network = TwoViewNetwork(config).to_precision(dtype)
    wanted = network.state_dict()
    state = fitting_state(file.tensors, wanted, str(file.path))
    own = {key: value.to(device=device, dtype=wanted[key].dtype, copy=True) for key, value in state.items()}
    network.load_state_dict(own, assign=True)
    say_licence(file, config)
    return network.requires_grad_(False).eval()


def save_network(network: TwoViewNetwork, path: Path, dtype: torch.dtype | None = None, licence: str = "") -> None:
    """Write a `.safetensors` file that `load_network` (and whoever knows the published keys) reads: the configuration is in its header.

    `dtype` for all tensors, or None as they are; `licence` of the weights is said when they are loaded.
    """
    import json

    from safetensors.torch import save_file

    own = {key: value for key, value in network.state_dict().items() if ".layer_rn." not in key}  # the twins share memory
    tensors = {key: value.detach().to("cpu", dtype or value.dtype).contiguous() for key, value in own.items()}
    words = words_of_config(network.config) | ({"licence": licence} if licence else {})
    save_file(tensors, path, metadata={"config": json.dumps(words), "format": "pt"})


def config_of_file(file: CheckpointFile, name: str | None = None) -> NetworkConfig:
    """What the file says it is; else what `name` says. Raises CheckpointError if neither does, or if they differ."""
    shapes = {key: tuple(value.shape) for key, value in file.tensors.items()}
    said = None if file.words is None else config_of_words(file.words, shapes, str(file.path))
    if said is None and name is None:
        raise CheckpointError(
            f"weights {file.path} do not say which network they are for: put its config.json beside them, or name the model"
        )
    if said is None:
        return published(str(name))
    if name is not None and (said.head, said.descriptor_width) != (published(name).head, published(name).descriptor_width):
        raise CheckpointError(
            f"weights {file.path} are for a network with head '{said.head}', but the model '{name}' has '{published(name).head}': "
            "set the model to 'auto', or give its own weights"
        )
    return said


def fitting_state(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """`found` under the keys of `wanted`, aliases resolved. Raises CheckpointError that names what is missing, surplus or misshapen."""
    state = {key: value for key, value in found.items() if not IGNORED.search(key)}
    if not any(key.startswith("dec_blocks2.") for key in state):
        state |= {f"dec_blocks2.{key.removeprefix('dec_blocks.')}": value for key, value in state.items() if key.startswith("dec_blocks.")}
    for key in [key for key in wanted if ".layer_rn." in key]:
        twin = re.sub(r"layer_rn\.(\d)", lambda match: f"layer{int(match[1]) + 1}_rn", key)
        if key in state and twin in state and not torch.equal(state[key], state[twin]):
            raise CheckpointError(f"weights {source}: '{key}' and '{twin}' are one parameter, but differ in the file: it is damaged")
        present = state.get(key, state.get(twin))
        if present is not None:
            state[key] = state[twin] = present
    for key in NOT_NEEDED & (set(wanted) - set(state)):
        state[key] = torch.zeros(wanted[key].shape)

    missing, surplus = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    if len(missing) > len(wanted) / 2:
        raise CheckpointError(
            f"weights {source} are of another architecture: {len(missing)} of {len(wanted)} tensors are missing; "
            f"it has {_some(sorted(found))}"
        )
    shapes = [
        f"{key} is {_shape(state[key])} and not {_shape(wanted[key])}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    kinds = [f"{key} is {state[key].dtype}" for key in wanted if key in state and not state[key].is_floating_point()]
    faults = [
        f"{what}: {_some(names)}"
        for what, names in (("missing", missing), ("not known here", surplus), ("wrong shape", shapes), ("no real numbers", kinds))
        if names
    ]
    if faults:
        raise CheckpointError(f"weights {source} do not fit the network; {'; '.join(faults)}")
    return {key: state[key] for key in wanted}


def say_licence(file: CheckpointFile, config: NetworkConfig) -> None:
    """Once a process."""
    text = licence_of(file, config)
    if text and text not in _said_licences:
        _said_licences.add(text)
        log.log(logging.INFO if text in FREE else logging.WARNING, "licence of %s: %s", file.path.name, text)


def licence_of(file: CheckpointFile, config: NetworkConfig) -> str:
    """What the file says itself; for weights of the published sizes (fine-tunes inherit the terms) the published licence; or nothing."""
    said = (file.words or {}).get("licence", (file.words or {}).get("license"))
    return str(said) if said else LICENCE if config in PUBLISHED.values() else ""


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a number"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
