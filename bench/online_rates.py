"""A pose for every image, over ROS: `python bench/online_rates.py [--frames 300] [--rate 30]`.

A camera of 640x480 in the simulated room publishes from this process at its rate; the node runs in another, with the estimator that needs
no network (flow). How many images get `odom -> camera` on /tf, how long after they were published that is heard here (the middleware's way
there and back included), how long tracking takes, and how many keyframes were estimated meanwhile.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from goal_table import Row

from dust3r_ros.simulation import SimulatedView
from dust3r_ros.simulation.room import room
from dust3r_ros.simulation.sequence import SimulatedSequence
from dust3r_ros.simulation.walks import camera_pose

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 640, 480
SETTLE = 1.0  # seconds between the node's listening and the first image
LAST = 1.0  # seconds for the last transforms to be heard
PATIENCE = 90.0  # seconds for the node to start


@dataclass(frozen=True)
class Rates:
    images: int
    with_tf: int  # of those since the first that had a pose
    since_first: int
    latency: np.ndarray  # [with_tf] seconds from publishing an image to hearing its transform
    track: np.ndarray  # seconds of tracking, of the images that ~/status told of
    keyframes: int
    seconds_of_keyframe: float  # the stages of the last one

    def rows(self) -> list[Row]:
        share = 30.0 * self.with_tf / max(self.since_first, 1)
        low, high = 1000 * np.percentile(self.latency, [50, 95]) if len(self.latency) else (np.nan, np.nan)
        track = 1000 * float(np.median(self.track)) if len(self.track) else np.nan
        return [
            Row("images with TF, of 30, since the first", f"{share:.1f}", "at least 29", share >= 29),
            Row("tracker, median", f"{track:.1f} ms", "under 8 ms", track < 8),
            Row("image to TF, 95th percentile (median)", f"{high:.1f} ms ({low:.1f} ms)", "under 15 ms", bool(high < 15)),
            Row("first pose at image", f"{self.images - self.since_first + 1}"),
            Row("keyframes meanwhile; seconds that the last took", f"{self.keyframes}; {self.seconds_of_keyframe:.2f}"),
        ]


def views(frames: int, rate: float, keep: Path | None = None) -> list[SimulatedView]:
    """The room's hand-held camera, at this rate. `keep`: a file of pictures that were rendered before, or will be."""
    sequence = SimulatedSequence(frames, WIDTH, HEIGHT, 0, room, lambda index: camera_pose(index / rate))
    kept = list(np.load(keep)) if keep is not None and keep.exists() else []
    if len(kept) < frames:
        kept += [sequence[k].image for k in range(len(kept), frames)]
        if keep is not None:
            np.save(keep, kept)
    nothing = np.zeros((0, 0), np.float32)
    return [SimulatedView(k, image, nothing, sequence.pose(k), sequence.camera) for k, image in enumerate(kept[:frames])]


def measured(shown: list[SimulatedView], rate: float, parameters: dict[str, object]) -> Rates:
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(ROOT / "config" / "fastdds_loopback.xml")
    import rclpy

    rclpy.init()
    given = [item for name, value in parameters.items() for item in ("-p", f"{name}:={value}")]
    command = [sys.executable, "-m", "dust3r_ros.ros.main", "--ros-args", "-p", "publish.status_period:=0.1", *given]
    node = subprocess.Popen(command, cwd=ROOT)
    try:
        return _played(shown, rate)
    finally:
        node.terminate()
        node.wait(30)
        rclpy.try_shutdown()


def _played(shown: list[SimulatedView], rate: float) -> Rates:
    import rclpy
    from dust3r_ros_msgs.msg import Status
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CameraInfo, Image
    from tf2_msgs.msg import TFMessage

    from dust3r_ros.ros.conversion import as_data, camera_info_message, from_time, to_header

    client = rclpy.create_node("rates")
    best_effort = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    images = client.create_publisher(Image, "/camera/image_raw", best_effort)
    infos = client.create_publisher(CameraInfo, "/camera/camera_info", best_effort)
    sent: dict[int, float] = {}
    heard: dict[int, float] = {}
    statuses: list[Status] = []

    def on_tf(message: TFMessage) -> None:
        now = time.monotonic()
        for item in message.transforms:
            if item.header.frame_id == "odom":
                heard.setdefault(from_time(item.header.stamp), now)

    client.create_subscription(TFMessage, "/tf", on_tf, 100)
    client.create_subscription(Status, "/dust3r/status", statuses.append, 100)
    executor = SingleThreadedExecutor()
    executor.add_node(client)
    stopping = threading.Event()

    def spin() -> None:
        while not stopping.is_set():
            executor.spin_once(timeout_sec=0.1)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        until = time.monotonic() + PATIENCE
        while not (images.get_subscription_count() and infos.get_subscription_count()):
            if time.monotonic() > until:
                raise SystemExit("the node did not start")
            time.sleep(0.05)
        time.sleep(SETTLE)
        data = [as_data(view.image) for view in shown]
        first, begin = round(time.time() * 1e9), time.monotonic()
        for n, view in enumerate(shown):
            time.sleep(max(0.0, begin + n / rate - time.monotonic()))
            stamp = first + round(n * 1e9 / rate)
            header = to_header(stamp, "camera")
            message = Image(header=header, height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH, data=data[n])
            infos.publish(camera_info_message(view.camera, header))
            sent[stamp] = time.monotonic()
            images.publish(message)
        time.sleep(LAST)
    finally:
        stopping.set()
        thread.join()
        client.destroy_node()
    order = list(sent)
    since = order[order.index(min(heard)) :] if heard else []
    stages = dict(zip(statuses[-1].stage_names, statuses[-1].stage_seconds, strict=True)) if statuses else {}
    track = {s.header.stamp.nanosec: dict(zip(s.stage_names, s.stage_seconds, strict=True)).get("track") for s in statuses}
    return Rates(
        len(order),
        len([stamp for stamp in since if stamp in heard]),
        len(since),
        np.array([heard[stamp] - sent[stamp] for stamp in since if stamp in heard]),
        np.array([seconds for seconds in track.values() if seconds is not None]),
        statuses[-1].keyframes if statuses else 0,
        sum(seconds for stage, seconds in stages.items() if stage != "track"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("-p", "--parameter", action="append", default=[], help="of the node, NAME:=VALUE")
    parser.add_argument("--keep", type=Path, help="file (.npy) of the rendered pictures, for the next time; rendering takes minutes")
    options = parser.parse_args()
    shown = views(options.frames, options.rate, options.keep)
    parameters = dict(item.split(":=") for item in options.parameter)
    for row in measured(shown, options.rate, parameters).rows():
        print(row)


if __name__ == "__main__":
    main()
