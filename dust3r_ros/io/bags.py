"""rosbag2 in and out through `rosbags`: no ROS, no middleware, the same frames in the same order every time."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.errors import Dust3rError
from dust3r_ros.geometry import Camera
from dust3r_ros.io.cut_bags import CutBag
from dust3r_ros.io.messages import MessageError, camera_from_info, decode_image, is_image_type, is_rectified
from dust3r_ros.mapping.types import Frame

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

log = logging.getLogger(__name__)

COLOUR, GREY, DEPTH = "colour", "grey", "depth"
JUMP = 1.0  # seconds back in time that are more than frames out of order
INFO_TYPE = "sensor_msgs/msg/CameraInfo"


class BagError(Dust3rError):
    """A bag that cannot be read or written."""


class Reader(Protocol):
    """What is asked of a bag: rosbags' AnyReader, or CutBag for what it refuses."""

    @property
    def connections(self) -> Collection[Any]: ...

    def messages(self, connections: Collection[Any]) -> Iterator[tuple[Any, int, bytes]]: ...

    def deserialize(self, data: bytes, kind: str, /) -> Any: ...

    def close(self) -> None: ...


class BagFrames:
    """The frames of one camera in a rosbag2 (mcap or sqlite3; a folder with metadata.yaml, or one .mcap or .db3 file).

    Without `image_topic` the images are found by type; of several topics the one with most messages is taken, pictures before depth images,
    and said. The CameraInfo is the topic beside the images, or `info_topic`. Messages that cannot be used are left out, counted in
    `skipped` by reason, and said; so is it if the bag was cut short or never closed, and what is there is read.
    Raises BagError for a bag without a single readable image.
    """

    def __init__(self, path: Path | str, image_topic: str | None = None, info_topic: str | None = None) -> None:
        self.path = Path(path)
        self.skipped: dict[str, int] = {}
        self._said: set[str] = set()
        with self._reader() as reader:
            images = _image_topics(reader)
            self.image_topic = self._chosen(reader, images, image_topic)
            self._count = images[self.image_topic]
            infos = {c.topic for c in reader.connections if c.msgtype == INFO_TYPE}
        if info_topic is not None and info_topic not in infos:
            raise BagError(f"bag {self.path} has no CameraInfo on '{info_topic}': it has {_listed(infos)}")
        self.info_topic = info_topic if info_topic is not None else _info_beside(self.image_topic, infos)

    def __len__(self) -> int:
        """Image messages in the bag, the unusable ones among them."""
        return self._count

    def __iter__(self) -> Iterator[Frame]:
        self.skipped = {}
        last: int | None = None
        found = 0
        for frame in self._decoded():
            if last is not None and frame.stamp <= last:
                jumped = (last - frame.stamp) * 1e-9 > JUMP
                self._skip(
                    "stamps jump back, as of a second run in one bag: split it" if jumped else "its stamp is not newer than the last"
                )
                continue
            last = frame.stamp
            found += 1
            yield frame
        for reason, count in self.skipped.items():
            log.warning("%s: %d of %d images on %s left out: %s", self.path, count, self._count, self.image_topic, reason)
        if not found:
            why = "; ".join(self.skipped) or "the bag is cut short before the first"
            raise BagError(f"bag {self.path} has no usable image on '{self.image_topic}': {why}")

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, Any]]:
        """(topic, time it was recorded in ns, message) of other topics, as they were recorded. Damaged ones are left out and said."""
        with self._reader() as reader:
            for connection, bag_time, raw in self._messages(reader, [c for c in reader.connections if c.topic in topics]):
                try:
                    message = reader.deserialize(raw, connection.msgtype)
                except Exception as error:
                    self._say(f"{connection.topic}: a message is damaged ({type(error).__name__}) and left out")
                    continue
                yield connection.topic, bag_time, message

    def topics(self) -> dict[str, str]:
        """The message type of every topic."""
        with self._reader() as reader:
            return {connection.topic: connection.msgtype for connection in reader.connections}

    def _say(self, what: str) -> None:
        if what not in self._said:
            log.warning("%s: %s", self.path, what)
            self._said.add(what)

    def _decoded(self) -> Iterator[Frame]:
        with self._reader() as reader:
            cameras = self._cameras(reader)
            connections = [c for c in reader.connections if c.topic == self.image_topic]
            for connection, bag_time, raw in self._messages(reader, connections):
                try:
                    message = reader.deserialize(raw, connection.msgtype)
                    image = decode_image(message)
                except Dust3rError as error:
                    self._skip(str(error))
                    continue
                except Exception as error:
                    self._skip(f"the message is damaged ({type(error).__name__})")
                    continue
                stamp = _stamp(message) or bag_time
                yield Frame(stamp, image, self._camera_of(image, stamp, cameras))

    def _messages(self, reader: Reader, connections: list[Any]) -> Iterator[tuple[Any, int, bytes]]:
        """All messages that can be read: a bag that was cut short ends where it was cut."""
        try:
            yield from reader.messages(connections=connections)
        except GeneratorExit:
            raise
        except Exception as error:
            log.warning("%s is cut short or damaged after what was read so far: %s", self.path, _one_line(error))
            self.skipped["the bag is cut short or damaged"] = 1

    def _cameras(self, reader: Reader) -> list[tuple[int, Camera]]:
        """[(stamp, camera)] of the CameraInfo topic, by stamp, each change once."""
        if self.info_topic is None:
            return []
        found: list[tuple[int, Camera]] = []
        refused: set[str] = set()
        rectified = is_rectified(self.image_topic)
        if rectified:
            self._say(f"{self.image_topic} has rectified images, by its name: their camera is CameraInfo's P, without distortion")
        for connection, bag_time, raw in self._messages(reader, [c for c in reader.connections if c.topic == self.info_topic]):
            try:
                message = reader.deserialize(raw, connection.msgtype)
                camera = camera_from_info(message, rectified)
            except MessageError as error:
                refused.add(str(error))
                continue
            except Exception as error:
                refused.add(f"a message is damaged ({type(error).__name__})")
                continue
            if camera is not None:
                found.append((_stamp(message) or bag_time, camera))
        for reason in sorted(refused):
            log.warning("%s: %s ignored: %s", self.path, self.info_topic, reason)
        found.sort(key=lambda entry: entry[0])
        return [entry for at, entry in enumerate(found) if at == 0 or entry[1] != found[at - 1][1]]

    def _camera_of(self, image: NDArray[np.uint8], stamp: int, cameras: list[tuple[int, Camera]]) -> Camera | None:
        """The newest CameraInfo that is not newer than the image, or else the first; None if it is for another size."""
        if not cameras:
            return None
        at = bisect_right(cameras, stamp, key=lambda entry: entry[0]) - 1
        camera = cameras[max(at, 0)][1]
        if (camera.width, camera.height) != (image.shape[1], image.shape[0]):
            reason = f"CameraInfo is for {camera.width}x{camera.height}, images are {image.shape[1]}x{image.shape[0]}: it is ignored"
            if reason not in self._said:
                log.warning("%s: %s", self.path, reason)
                self._said.add(reason)
            return None
        return camera

    def _skip(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def _chosen(self, reader: Reader, images: dict[str, int], wanted: str | None) -> str:
        if wanted is not None and wanted not in images:
            raise BagError(f"bag {self.path} has no images on '{wanted}': it has {_listed(images)}")
        if not images:
            raise BagError(f"bag {self.path} has no images: no topic of type sensor_msgs/Image or CompressedImage holds a message")
        if wanted is not None:
            return wanted
        if len(images) == 1:
            return next(iter(images))
        kinds = {name: _kind_of_image(reader, name) for name in images}
        # Of the two cameras of a stereo pair the left one and of cam0 and cam1 the former comes first by name.
        topic = min(images, key=lambda name: (kinds[name] == DEPTH, -images[name], kinds[name] != COLOUR, name))
        counted = ", ".join(f"{name} ({count} {kinds[name]})" for name, count in images.items())
        log.warning("%s has images on %s: taking %s; name another to choose", self.path, counted, topic)
        return topic

    @contextmanager
    def _reader(self) -> Iterator[Reader]:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore

        if not self.path.exists():
            raise BagError(f"bag {self.path} does not exist: give the folder of a rosbag2 or its .mcap or .db3 file")
        reader: Reader
        try:
            whole = AnyReader([self.path], default_typestore=get_typestore(Stores.ROS2_KILTED))
            whole.open()
            reader = whole
        except Exception as error:
            reader = self._what_is_left(error)
        try:
            yield reader
        finally:
            reader.close()

    def _what_is_left(self, refusal: Exception) -> Reader:
        """The messages of a bag that was cut short or never closed. BagError if there is none."""
        rest = CutBag(self.path)
        if not rest.connections:
            raise BagError(
                f"bag {self.path} cannot be read: {_one_line(refusal)}; "
                "give a whole rosbag2 ('ros2 bag reindex' or 'mcap recover' mend one that was cut short)"
            ) from refusal
        reason = f"it was cut short or never closed ({_one_line(refusal)}); what is there is read"
        if reason not in self._said:
            log.warning("%s: %s", self.path, reason)
            self._said.add(reason)
        return rest


class BagWriter:
    """Writes images and CameraInfos as a rosbag2; a context manager. Raises BagError if the folder is there already or cannot be made."""

    def __init__(self, path: Path | str, storage: Literal["mcap", "sqlite3"] = "mcap") -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        self.path = Path(path)
        self._types = get_typestore(Stores.ROS2_KILTED)
        self._connections: dict[tuple[str, str], Connection] = {}
        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = Writer(self.path, version=9, storage_plugin=plugin)
        except Exception as error:
            raise BagError(f"bag {self.path} cannot be written: {_one_line(error)}; give a folder that does not exist yet") from error

    def __enter__(self) -> BagWriter:
        try:
            self._writer.open()
        except Exception as error:
            raise BagError(f"bag {self.path} cannot be written: {_one_line(error)}; give a folder that can be written to") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()

    def image(self, topic: str, stamp: int, rgb: NDArray[np.uint8], frame_id: str = "camera") -> None:
        """An rgb8 Image from (H, W, 3)."""
        height, width = rgb.shape[:2]
        data = np.ascontiguousarray(rgb).reshape(-1)
        self.write(topic, stamp, "sensor_msgs/msg/Image", header=self._header(stamp, frame_id), height=height, width=width, encoding="rgb8",
                   is_bigendian=0, step=3 * width, data=data)  # fmt: skip

    def compressed(self, topic: str, stamp: int, rgb: NDArray[np.uint8], frame_id: str = "camera", form: str = "jpeg") -> None:
        """A CompressedImage (`form` jpeg or png) from (H, W, 3)."""
        import cv2

        _, data = cv2.imencode(".png" if form == "png" else ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        self.write(topic, stamp, "sensor_msgs/msg/CompressedImage", header=self._header(stamp, frame_id), format=form, data=data.ravel())

    def camera_info(self, topic: str, stamp: int, camera: Camera, frame_id: str = "camera") -> None:
        region = self._types.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        model = "plumb_bob" if camera.model == "pinhole" else camera.model
        projection = np.hstack([camera.matrix, np.zeros((3, 1))])
        self.write(topic, stamp, INFO_TYPE, header=self._header(stamp, frame_id), height=camera.height, width=camera.width,
                   distortion_model=model, d=np.array(camera.distortion or [0.0] * 5, np.float64), k=camera.matrix.ravel(),
                   r=np.eye(3).ravel(), p=projection.ravel(), binning_x=0, binning_y=0, roi=region)  # fmt: skip

    def write(self, topic: str, stamp: int, kind: str, **fields: Any) -> None:
        """Any message of ROS 2 Kilted's common packages, by its fields."""
        key = (topic, kind)
        if key not in self._connections:
            self._connections[key] = self._writer.add_connection(topic, kind, typestore=self._types)
        self._writer.write(self._connections[key], stamp, self._types.serialize_cdr(self._types.types[kind](**fields), kind))

    def _header(self, stamp: int, frame_id: str) -> Any:
        seconds, rest = divmod(int(stamp), 1_000_000_000)
        return self._types.types["std_msgs/msg/Header"](self._types.types["builtin_interfaces/msg/Time"](seconds, rest), frame_id)


def _image_topics(reader: Reader) -> dict[str, int]:
    """Topics with images and how many messages they have."""
    counts: dict[str, int] = {}
    for connection in reader.connections:
        if is_image_type(connection.msgtype):
            counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
    return {topic: count for topic, count in sorted(counts.items()) if count}


def _kind_of_image(reader: Reader, topic: str) -> str:
    """By the first message: a depth camera's images are no pictures, and both are often in one bag."""
    connections = [c for c in reader.connections if c.topic == topic and c.msgcount]
    try:
        connection, _, raw = next(iter(reader.messages(connections=connections)))
        message = reader.deserialize(raw, connection.msgtype)
    except Exception:  # said when the topic is read
        return DEPTH
    if not hasattr(message, "encoding"):
        return DEPTH if "compressedDepth" in message.format else COLOUR
    if message.encoding in ("16UC1", "32FC1"):
        return DEPTH
    return GREY if message.encoding in ("mono8", "mono16", "8UC1") else COLOUR


def _info_beside(image_topic: str, infos: set[str]) -> str | None:
    """The CameraInfo of an image topic: in the same namespace, or one up for `.../image_raw/compressed`; or the only one there is."""
    base = image_topic.rsplit("/", 1)[0]
    for name in (f"{base}/camera_info", f"{base.rsplit('/', 1)[0]}/camera_info"):
        if name in infos:
            return name
    return next(iter(infos)) if len(infos) == 1 else None


def _stamp(message: Any) -> int:
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def _listed(topics: Any) -> str:
    return ", ".join(sorted(topics)) or "none"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
