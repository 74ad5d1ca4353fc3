"""What `auto` picks by what the machine has, and where the network runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.networks import small_weights

from dust3r_ros.estimators import EstimatorError
from dust3r_ros.estimators.choice import PREFERENCE, choose
from dust3r_ros.estimators.two_view import hardware
from dust3r_ros.estimators.two_view.hardware import choose_hardware
from dust3r_ros.models import shipped
from dust3r_ros.network.hub import PUBLISHED_WEIGHTS


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_90"], True),  # code of the same major version
        ((8, 7), ["sm_86", "sm_89", "sm_90"], True),
        ((8, 0), ["sm_86", "sm_90"], False),
        ((6, 1), ["sm_75", "sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "sm_90", "compute_90"], True),  # compiled for it from PTX
        ((12, 0), ["sm_80", "sm_90"], False),
        ((9, 0), ["sm_90a"], True),
        ((10, 0), ["sm_100", "sm_120"], True),
    ],
)
def test_which_gpus_a_build_of_torch_runs_on(capability: tuple[int, int], architectures: list[str], runs: bool) -> None:
    assert hardware._runs_on(capability, architectures) == runs


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    """gpu(capability, memory): torch says that it has such a GPU."""

    def there(capability: tuple[int, int] = (8, 9), memory: float = 24e9) -> None:
        for name, answer in {
            "is_available": True,
            "get_device_name": "Some GPU",
            "get_device_capability": capability,
            "get_arch_list": ["sm_80", "sm_90"],
            "get_device_properties": SimpleNamespace(total_memory=memory),
        }.items():
            monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)

    return there


@pytest.mark.parametrize(("capability", "precision"), [((9, 0), torch.bfloat16), ((8, 6), torch.bfloat16)])
def test_half_precision_where_the_gpu_has_it(gpu, capability: tuple[int, int], precision: torch.dtype) -> None:
    gpu(capability)
    chosen = choose_hardware()
    assert (chosen.device.type, chosen.precision) == ("cuda", precision)
    assert chosen.text == "Some GPU, bfloat16"
    assert choose_hardware("cpu").device.type == "cpu"
    assert choose_hardware(precision="float32").precision == torch.float32


def test_a_gpu_that_torch_has_no_code_for(gpu, caplog: pytest.LogCaptureFixture) -> None:
    gpu((6, 1))
    assert choose_hardware().device.type == "cpu"
    assert "Some GPU (sm_61) is older or newer" in caplog.records[0].getMessage()
    with pytest.raises(EstimatorError, match=r"is 'cuda', but Some GPU \(sm_61\)"):
        choose_hardware("cuda")


def publish(cache: Path, name: str) -> Path:
    """What the hub's cache looks like after a fetch; the file has the published size, but no bytes on the disk."""
    weights = PUBLISHED_WEIGHTS[name]
    folder = cache / f"models--{weights.repository.replace('/', '--')}"
    commit = weights.revision or "f" * 40
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    (snapshot / "config.json").write_text("{}")
    with (snapshot / "model.safetensors").open("wb") as file:
        file.truncate(weights.size or 1)
    return snapshot / "model.safetensors"


@pytest.fixture(autouse=True)
def nothing_shipped(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What auto makes of a shipped model has its own tests."""
    empty = tmp_path_factory.mktemp("models")
    monkeypatch.setattr(shipped, "folder", lambda: empty)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_auto_takes_the_best_weights_on_the_disk(gpu, cache: Path) -> None:
    gpu()
    assert choose().model == "flow"
    assert f"models fetch {PREFERENCE[1]}" in choose().reason
    for name in reversed(PREFERENCE):
        path = publish(cache, name)
        choice = choose()
        assert (choice.model, choice.weights) == (name, path)
        assert "Some GPU" in choice.reason
    assert choose(device="cpu").model == "flow"


def test_auto_leaves_alone_what_is_not_whole(gpu, cache: Path) -> None:
    gpu()
    path = publish(cache, "dust3r_512_dpt")
    with path.open("r+b") as file:
        file.truncate(1000)
    assert choose().model == "flow"


@pytest.mark.parametrize(("options", "reason"), [({"memory": 2e9}, "has under 4 GB"), ({"capability": (5, 0)}, "sm_50")])
def test_auto_takes_flow_on_a_gpu_that_is_too_small_or_old(gpu, cache: Path, options: dict, reason: str) -> None:
    publish(cache, "dust3r_512_dpt")
    gpu(**options)
    assert choose().model == "flow"
    assert reason in choose().reason


# ---- the commands --------------------------------------------------------------------------------------------------------------------


def command(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    call = [sys.executable, "-m", "dust3r_ros.cli", "models", *arguments]
    return subprocess.run(call, env=environment, capture_output=True, text=True, check=False)


def test_models_list_says_what_is_there_and_what_auto_takes(tmp_path: Path) -> None:
    publish(tmp_path / "hub", "dust3r_512_dpt")
    said = command("list", home=tmp_path)
    assert said.returncode == 0, said.stderr
    rows = {line.split()[0]: line for line in said.stdout.splitlines() if line.strip()}
    assert rows["dust3r_512_dpt"].rstrip().endswith("yes")
    assert rows["mast3r_512_catmlpdpt"].rstrip().endswith("no")
    assert "auto takes" in said.stdout


def test_models_info_says_what_a_file_holds(tmp_path: Path) -> None:
    said = command("info", str(small_weights(tmp_path)), home=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "fits; 38.3 million parameters" in said.stdout
    assert "licence: none: random numbers" in said.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("info", "dust3r_512_dpt"), "is not on this disk: 'dust3r_ros models fetch dust3r_512_dpt'"),
        (("info", "nowhere.pth"), "there is no such file"),
        (("fetch", "dust3r_512"), "no published weights are called 'dust3r_512'"),
        (("fetch", "dust3r_512_dpt"), "HF_HUB_OFFLINE"),
    ],
)
def test_models_refuses_in_one_line(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    said = command(*arguments, home=tmp_path)
    assert said.returncode == 1
    last = said.stderr.strip().splitlines()[-1]
    assert words in last
    assert last.startswith("dust3r_ros: ")
    assert "Traceback" not in said.stderr
