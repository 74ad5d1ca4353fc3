"""The demo's run through real ROS 2: the node, a player and a recorder, each a process of its own, and nothing but DDS between them."""

from __future__ import annotations

import os
import random
import sys
import sysconfig
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from dust3r_ros.demo.inputs import IMAGE_TOPIC, DemoError
from dust3r_ros.demo.processes import Process
from dust3r_ros.demo.recording import Recording
from dust3r_ros.ros.recording import RecordedRun

PROFILE = Path("config") / "fastdds_loopback.xml"
QUIET = 8.0  # seconds without news after which a run is over
START_LIMIT = 300.0  # seconds for the node to listen: it compiles first, once on a new machine
PLAY_LIMIT, QUIET_LIMIT = START_LIMIT + 180.0, 60.0  # seconds after which the demo gives up on the player, the recorder

# The node's map has z up and x along the first camera's view (REP 103); without a base frame it begins where that camera was.
_MAP_TO_FIRST = np.array([[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def environment(folder: Path) -> dict[str, str]:
    """For processes that talk to each other and to nobody else: this machine alone, a domain of their own, images over shared memory."""
    variable = "FASTRTPS_DEFAULT_PROFILES_FILE" if os.environ.get("ROS_DISTRO") == "humble" else "FASTDDS_DEFAULT_PROFILES_FILE"
    return {
        **os.environ,
        "ROS_DOMAIN_ID": str(random.randrange(1, 101)),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
        variable: str(profile()),
        "ROS_LOG_DIR": str(folder / "log"),
        "PYTHONUNBUFFERED": "1",
    }


def profile() -> Path:
    """The Fast DDS profile, in the sources or where it was installed. DemoError if it is in neither."""
    prefixes = [Path(sysconfig.get_path("data")), *(Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep))]
    for folder in [Path(__file__).parents[2], *(prefix / "share" / "dust3r_ros" for prefix in prefixes)]:
        if (folder / PROFILE).is_file():
            return (folder / PROFILE).resolve()
    raise DemoError(f"{PROFILE} is missing: it belongs to the package's share folder, install the package anew")


def map_bag(bag: Path, folder: Path) -> Recording:
    """Play a bag to a node and record what it says. Logs and `recorded.npz` lie in `folder`. DemoError if a process dies."""
    ours = environment(folder)
    python = [sys.executable, "-m"]
    recorded = folder / "recorded.npz"
    record = [*python, "dust3r_ros.ros.recorder", str(recorded), "--idle", str(QUIET)]
    serve = [*python, "dust3r_ros.ros.main", "--ros-args", "-p", f"image:={IMAGE_TOPIC}"]
    play = [*python, "dust3r_ros.ros.player", str(bag), "--wait-for-subscribers", "1", "--timeout", f"{START_LIMIT:g}"]
    with (
        Process("recorder", record, folder / "recorder.log", ours) as recorder,
        Process("node", serve, folder / "node.log", ours) as node,
    ):
        with Process("player", play, folder / "player.log", ours) as player:
            player.wait(PLAY_LIMIT, others=(node, recorder))
        _wait_for_quiet(recorder, node)
        node.check()
        if recorder.stop() != 0:
            raise DemoError(f"the recorder ended with code {recorder.exit_code}; its last words ({recorder.log}): {recorder.last_words()}")
        if node.stop() != 0:
            raise DemoError(f"the node ended with code {node.exit_code}; its last words ({node.log}): {node.last_words()}")
    return from_run(RecordedRun.load(recorded))


def _wait_for_quiet(recorder: Process, node: Process) -> None:
    """Until the recorder ends by itself; one that heard nothing at all never does."""
    deadline = time.monotonic() + QUIET_LIMIT
    while recorder.exit_code is None and time.monotonic() < deadline:
        node.check()
        time.sleep(0.1)


def from_run(run: RecordedRun) -> Recording:
    """What the demo looks at of a recorded run. Without a base frame the path is the camera's."""
    last = run.statuses[-1] if run.statuses else {}
    rates = [status["frame_rate"] for status in run.statuses if status["frame_rate"] > 0]
    stages: dict[str, list[float]] = {}
    for status in run.statuses:
        for stage, spent in status["seconds"].items():
            stages.setdefault(stage, []).append(spent)
    return Recording(
        depths=run.depths,
        confidences=run.confidences,
        trajectory=[(stamp, _MAP_TO_FIRST @ pose) for stamp, pose in run.path],
        cloud=None if run.map is None else replace(run.map, points=run.map.points @ _MAP_TO_FIRST[:3, :3].T.astype(np.float32)),
        keyframes=[(stamp, _MAP_TO_FIRST @ pose) for _, stamp, pose in run.keyframes],
        frames=int(last.get("frames", 0)),
        rate=float(np.median(rates)) if rates else 0.0,
        seconds={stage: float(np.mean(spent)) for stage, spent in stages.items()},
    )
