"""Weights by path: what is read, what is refused and in which words."""

from __future__ import annotations

import argparse
import json
import logging
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dust3r_ros.network import CheckpointError, NetworkConfig, NetworkError, TwoViewNetwork, load_network, loading, save_network
from dust3r_ros.network.config_words import config_of_words, words_of_call, words_of_config
from dust3r_ros.network.loading import fitting_state

SMALL = NetworkConfig(
    encoder_width=32, encoder_depth=2, encoder_heads=2, decoder_width=24, decoder_depth=4, decoder_heads=2, head="linear", image_size=64
)
CALL = (
    "AsymmetricCroCo3DStereo(pos_embed='RoPE100', img_size=(64, 64), head_type='linear', output_mode='pts3d', "
    "depth_mode=('exp', -inf, float('inf')), conf_mode=('exp', 1, inf), enc_embed_dim=32, enc_depth=2, enc_num_heads=2, "
    "dec_embed_dim=24, dec_depth=4, dec_num_heads=2, landscape_only=False)"
)


@pytest.fixture(scope="module")
def network() -> TwoViewNetwork:
    torch.manual_seed(0)
    return TwoViewNetwork(SMALL).eval()


def state(network: TwoViewNetwork) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def same(a: TwoViewNetwork, b: TwoViewNetwork) -> bool:
    image = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        return torch.equal(a(image, image).points_1, b(image, image).points_1)


def write(folder: Path, kind: str, tensors: dict[str, torch.Tensor], words: dict[str, Any] | None = None) -> Path:
    path = folder / f"model.{'safetensors' if kind == 'hub' else kind}"
    if kind == "pth":
        torch.save({"args": argparse.Namespace(model=CALL, lr=1e-4), "model": tensors, "epoch": 3}, path)
    else:
        save_file({key: value.contiguous() for key, value in tensors.items()}, path)
        (folder / "config.json").write_text(json.dumps(words_of_config(SMALL) if words is None else words))
    return path


@pytest.mark.parametrize("kind", ["hub", "pth"])
def test_both_kinds_of_files_give_the_same_network(kind: str, network: TwoViewNetwork, tmp_path: Path) -> None:
    loaded = load_network(write(tmp_path, kind, state(network)))
    assert loaded.config == SMALL
    assert same(loaded, network)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_what_we_save_says_itself_what_it_is(
    network: TwoViewNetwork, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_said_licences", set())
    save_network(network, tmp_path / "own.safetensors", licence="Apache-2.0")
    with caplog.at_level(logging.INFO):
        assert same(load_network(tmp_path / "own.safetensors"), network)
        load_network(tmp_path / "own.safetensors")
    assert [(record.getMessage(), record.levelname) for record in caplog.records] == [("licence of own.safetensors: Apache-2.0", "INFO")]


@pytest.mark.parametrize("head", ["dpt", "catmlp+dpt"])
def test_other_heads_and_half_precision_files(head: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = replace(SMALL, head=head, descriptor_width=5 if head == "catmlp+dpt" else 0)
    network = TwoViewNetwork(config).eval()
    save_network(network, tmp_path / "half.safetensors", torch.float16)
    loaded = load_network(tmp_path / "half.safetensors", dtype=torch.bfloat16)
    assert loaded.config == config
    assert loaded.enc_blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert loaded.enc_blocks[0].norm1.weight.dtype == torch.float32
    assert loaded.downstream_head1.last_layers[0].weight.dtype == torch.float32
    image = torch.rand(1, 3, 32, 48) * 2 - 1
    with torch.inference_mode():
        exact, rough = network(image, image), loaded(image, image)
    assert float((exact.points_1 - rough.points_1).norm() / exact.points_1.norm()) < 0.03


def test_a_folder_with_one_file_is_that_file(network: TwoViewNetwork, tmp_path: Path) -> None:
    write(tmp_path, "hub", state(network))
    assert same(load_network(tmp_path), network)


# ---- aliases -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["scratch.layer1_rn", "scratch.layer_rn.0"])
def test_twins_may_both_be_there_or_one(kept: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = TwoViewNetwork(replace(SMALL, head="dpt")).eval()
    gone = "layer_rn." if kept.endswith("layer1_rn") else tuple(f"layer{k}_rn" for k in range(1, 5))
    tensors = {
        key: value for key, value in state(network).items() if not any(g in key for g in ((gone,) if isinstance(gone, str) else gone))
    }
    assert len(tensors) < len(network.state_dict())
    assert same(load_network(write(tmp_path, "hub", tensors, words_of_config(replace(SMALL, head="dpt")))), network)


def test_twins_that_differ_are_damage() -> None:
    network = TwoViewNetwork(replace(SMALL, head="dpt"))
    tensors = state(network)
    tensors["downstream_head1.dpt.scratch.layer2_rn.weight"] += 1
    with pytest.raises(CheckpointError, match=r"layer_rn\.1\.weight' and .*layer2_rn\.weight' are one parameter"):
        fitting_state(tensors, network.state_dict(), "file")


def test_one_decoder_stands_for_both(network: TwoViewNetwork, tmp_path: Path) -> None:
    tensors = {key: value for key, value in state(network).items() if not key.startswith("dec_blocks2.")}
    loaded = load_network(write(tmp_path, "hub", tensors))
    for key, value in loaded.dec_blocks2.state_dict().items():
        assert torch.equal(value, network.dec_blocks.state_dict()[key])


def test_pretrainings_leftovers_are_no_fault(network: TwoViewNetwork, tmp_path: Path) -> None:
    tensors = state(network)
    del tensors["mask_token"]
    tensors["prediction_head.weight"] = torch.zeros(3, 3)
    tensors["downstream_head1.dpt.act_1_postprocess.0.weight"] = torch.zeros(3)
    assert same(load_network(write(tmp_path, "hub", tensors)), network)


# ---- what is refused -----------------------------------------------------------------------------------------------------------------


def damaged(network: TwoViewNetwork, fault: str) -> dict[str, torch.Tensor]:
    tensors = state(network)
    if fault == "missing":
        for k in range(6):
            del tensors[f"enc_blocks.{k % 2}.{('attn.qkv', 'mlp.fc1', 'norm1')[k // 2]}.weight"]
    elif fault == "surplus":
        tensors["enc_blocks.0.attn.gate"] = torch.zeros(2)
    elif fault == "shape":
        tensors["dec_norm.bias"] = torch.zeros(25)
    elif fault == "kind":
        tensors["dec_norm.bias"] = torch.zeros(24, dtype=torch.int32)
    elif fault == "foreign":
        tensors = {f"backbone.layer{k}.weight": torch.zeros(2, 2) for k in range(9)}
    return tensors


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", "missing: enc_blocks.0.attn.qkv.weight, enc_blocks.0.mlp.fc1.weight, .* and 2 more$"),
        ("surplus", "not known here: enc_blocks.0.attn.gate$"),
        ("shape", "wrong shape: dec_norm.bias is 25 and not 24$"),
        ("kind", "no real numbers: dec_norm.bias is torch.int32$"),
        ("foreign", "of another architecture: .* it has backbone.layer0.weight, "),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(fault: str, words: str, network: TwoViewNetwork, tmp_path: Path) -> None:
    path = write(tmp_path, "hub", damaged(network, fault))
    with pytest.raises(CheckpointError, match=words) as refused:
        load_network(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["hub", "pth"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_refused(kind: str, share: float, network: TwoViewNetwork, tmp_path: Path) -> None:
    path = write(tmp_path, kind, state(network))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"(cut short|damaged|empty).* fetch it again"):
        load_network(path)


class Evil:
    """Runs when it is unpickled the ordinary way."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_nothing_in_a_pickle_is_ever_run(tmp_path: Path, network: TwoViewNetwork) -> None:
    mark, path = tmp_path / "mark", tmp_path / "evil.pth"
    torch.save({"model": state(network), "args": Evil(mark)}, path)
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()
    mark.unlink()
    with pytest.raises(CheckpointError, match="nothing in it was run"):
        load_network(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "A(enc_depth=__import__('os'))",
        "A(**x)",
        "A(3)",
        "A(enc_depth=1",
        "A(x=[y for y in z])",
        "A(x=f(1))",
    ],
)
def test_a_description_is_data_or_nothing(text: str) -> None:
    with pytest.raises(NetworkError, match="which is no Name"):
        words_of_call(text, "file")


def test_the_words_of_a_description() -> None:
    words = words_of_call(CALL, "file")
    assert words["depth_mode"] == ["exp", -float("inf"), float("inf")]
    assert config_of_words(words, {}, "file") == SMALL


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("head_type", "mlp"),
        ("pos_embed", "cosine"),
        ("output_mode", "pts3d+normals"),
        ("depth_mode", ["square", -float("inf"), float("inf")]),
        ("conf_mode", ["exp", 0, float("inf")]),
        ("patch_embed_cls", "Conv"),
        ("enc_depth", 2.5),
        ("enc_num_heads", True),
    ],
)
def test_words_that_this_code_does_not_compute_are_named(word: str, value: Any) -> None:
    with pytest.raises(NetworkError, match=rf"file has {word} "):
        config_of_words(words_of_config(SMALL) | {word: value}, {}, "file")


def test_widths_are_read_off_shapes_but_heads_are_not(network: TwoViewNetwork) -> None:
    words = words_of_config(SMALL)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    for word in ("enc_embed_dim", "enc_depth", "dec_embed_dim", "dec_depth"):
        del words[word]
    assert config_of_words(words, shapes, "file") == SMALL
    del words["enc_num_heads"]
    with pytest.raises(NetworkError, match="does not say enc_num_heads"):
        config_of_words(words, shapes, "file")


def test_a_file_that_does_not_say_what_it_is(network: TwoViewNetwork, tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file(dict(network.named_parameters()), path)
    with pytest.raises(CheckpointError, match="do not say which network"):
        load_network(path)
    with pytest.raises(CheckpointError, match="another architecture"):
        load_network(path, "dust3r_224_linear")
    with pytest.raises(CheckpointError, match="has 'dpt'"):
        load_network(write(tmp_path, "hub", state(network)), "dust3r_512_dpt")


@pytest.mark.parametrize("name", ["absent.pth", "weights.bin", "."])
def test_no_such_file_in_words(name: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"no such file|ends in|must hold one file"):
        load_network(tmp_path / name)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, head="catmlp+dpt", descriptor_width=24),
        replace(SMALL, image_size=224, square=True),
        replace(SMALL, image_size=224),
    ],
)
def test_a_configuration_survives_its_own_words(config: NetworkConfig) -> None:
    assert config_of_words(json.loads(json.dumps(words_of_config(config))), {}, "file") == config
