"""Fetching, against a hub on this machine that answers, refuses and breaks off as the real one does; each in a process of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.hub import COMMIT, LocalHub

from dust3r_ros.network.config import PUBLISHED
from dust3r_ros.network.hub import PUBLISHED_WEIGHTS

WEIGHTS = bytes(range(256)) * 100_000  # 25 MB: the client writes pieces of 10
FILES = {"config.json": b'{"head_type": "linear"}', "model.safetensors": WEIGHTS}
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
FETCH = """
import sys
from dust3r_ros.errors import Dust3rError
from dust3r_ros.network.hub import PublishedWeights, cached, fetch
weights = PublishedWeights("someone/model", int(sys.argv[1]), sys.argv[2] or None, int(sys.argv[3]) or None, sys.argv[4] or None)
print("before", cached(weights))
try:
    print("fetched", fetch(weights))
except Dust3rError as error:
    print("refused", error)
print("after", cached(weights))
"""


def start(
    hub: LocalHub | str, home: Path, digest: str = DIGEST, revision: str = COMMIT, megabytes: int = 26, **env: str
) -> subprocess.Popen[str]:
    url = hub if isinstance(hub, str) else hub.url
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": url, **quiet, **env}
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", FETCH, str(megabytes), revision, str(len(WEIGHTS)), digest]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(hub: LocalHub | str, home: Path, **options: Any) -> list[str]:
    """The lines that the script prints."""
    process = start(hub, home, **options)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.splitlines()


def test_fetched_once_then_read_from_the_cache_even_offline(tmp_path: Path) -> None:
    with LocalHub(FILES) as hub:
        before, fetched, after = run(hub, tmp_path)
        assert before == "before None"
        path = Path(fetched.removeprefix("fetched "))
        assert path.read_bytes() == WEIGHTS
        assert after == f"after {path}"
        assert (path.parent / "config.json").exists()
        asked = len(hub.requests)
        assert run(hub, tmp_path)[1] == fetched
        assert len(hub.requests) == asked
    assert run("http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")[1] == fetched


def test_a_download_that_was_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with LocalHub(FILES) as hub:
        hub.cut_at, hub.stalls = 11_000_000, True
        process = start(hub, tmp_path)
        until = time.monotonic() + 60
        while not any(path.stat().st_size > 10_000_000 for path in tmp_path.rglob("*.incomplete")):
            assert process.poll() is None, "the download ended before it could be killed"
            assert time.monotonic() < until, "nothing of the download came to the disk"
            time.sleep(0.05)  # the only sign of progress is the file
        process.kill()
        process.communicate()
        hub.cut_at = 0
        hub.released.set()
        hub.requests.clear()
        fetched = run(hub, tmp_path)[1]
        assert Path(fetched.removeprefix("fetched ")).read_bytes() == WEIGHTS
        ranges = [range_ for method, path, range_ in hub.requests if method == "GET" and path.endswith("safetensors")]
        assert ranges == ["bytes=10485760-"]


def test_without_a_pinned_revision_the_first_one_stays(tmp_path: Path) -> None:
    with LocalHub(FILES) as hub:
        path = run(hub, tmp_path, revision="")[1].removeprefix("fetched ")
        assert COMMIT in path
        assert run("http://127.0.0.1:9", tmp_path, revision="", HF_HUB_OFFLINE="1")[0] == f"before {path}"


def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with LocalHub(FILES) as hub:
        hub.cut_at = 11_000_000
        refused = run(hub, tmp_path)[1]
        assert "fetch again" in refused or refused.startswith("fetched")  # newer clients ask for the rest themselves
        hub.cut_at = 0
        fetched = run(hub, tmp_path)[1]
        assert Path(fetched.removeprefix("fetched ")).read_bytes() == WEIGHTS
        ranges = [range_ for method, path, range_ in hub.requests if method == "GET" and path.endswith("safetensors")]
        assert "bytes=10485760-" in ranges


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "accept its terms"),
        (404, "does not have it"),
        pytest.param(500, "answers 500", marks=pytest.mark.slow),  # the client tries again for half a minute
        pytest.param(429, "answers 429", marks=pytest.mark.slow),
    ],
)
def test_a_hub_that_refuses(status: int, words: str, tmp_path: Path) -> None:
    with LocalHub(FILES) as hub:
        hub.status = status
        _, refused, after = run(hub, tmp_path)
    assert refused.startswith("refused someone/model/config.json: ")
    assert words in refused
    assert "estimator.weights" in refused
    assert after == "after None"


@pytest.mark.slow
def test_no_network(tmp_path: Path) -> None:
    assert "the hub cannot be reached" in run("http://127.0.0.1:9", tmp_path)[1]


def test_offline_mode_is_named(tmp_path: Path) -> None:
    assert "HF_HUB_OFFLINE" in run("http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")[1]


def test_another_file_than_the_published_one_is_deleted(tmp_path: Path) -> None:
    with LocalHub(FILES) as hub:
        _, refused, after = run(hub, tmp_path, digest="0" * 64)
    assert "its SHA-256 differs" in refused
    assert after == "after None"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 1_000_000]


def test_a_disk_that_is_too_small_is_found_before_the_download(tmp_path: Path) -> None:
    with LocalHub(FILES) as hub:
        refused = run(hub, tmp_path, megabytes=10**9)[1]
        assert "make room or set HF_HOME" in refused
        assert not hub.requests


@pytest.mark.skipif(not Path("/dev/shm").is_dir() or os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_that_runs_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(small)], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with LocalHub(FILES) as hub:
            _, refused, after = run(hub, small, megabytes=1)
        assert "make room or set HF_HOME" in refused
        assert after == "after None"
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_every_published_network_has_its_place() -> None:
    assert set(PUBLISHED_WEIGHTS) == set(PUBLISHED)
    for weights in PUBLISHED_WEIGHTS.values():
        assert (weights.revision is None) == (weights.sha256 is None) == (weights.size is None)
        assert weights.size is None or abs(weights.size / 1e6 - weights.megabytes) < 1
