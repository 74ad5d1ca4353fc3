"""From messages to a Frame: decoded, with its CameraInfo where there is one, and newer than the frame before."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from dust3r_ros.errors import Dust3rError
from dust3r_ros.geometry import Camera
from dust3r_ros.io.messages import camera_from_info, decode_image, is_rectified
from dust3r_ros.mapping.types import Frame
from dust3r_ros.ros.conversion import from_time
from dust3r_ros.ros.errors import RosError

log = logging.getLogger(__name__)

KEPT_INFOS = 64
IN_STEP_WAIT = 0.1  # seconds for a CameraInfo that has come with every image so far
JUMP = 1_000_000_000  # ns back in time that are more than frames out of order

Warn = Callable[[str], None]


class StaleFrameError(RosError):
    """A stamp that is not newer than the last one: the frame is dropped."""


class TimeJumpError(RosError):
    """Stamps went back by more than a second: another run of the bag, or a clock that was set."""


class CameraInfos:
    """The newest CameraInfos by stamp. Nonsense among them is told once per kind and left out."""

    def __init__(self, warn: Warn) -> None:
        self._warn = warn
        self._cameras: OrderedDict[int, Camera] = OrderedDict()
        self._arrived = threading.Condition()
        self._in_step = False
        self._first_wait_over = False
        self._rectified = False

    def restart(self) -> None:
        """The next image is a first one again."""
        with self._arrived:
            self._first_wait_over = False

    def of_images(self, topic: str) -> None:
        """Whose they are, before the first comes: by its name a topic has rectified images."""
        self._rectified = is_rectified(topic)
        if self._rectified:
            log.info("%s has rectified images, by its name: their camera is CameraInfo's P, without distortion", topic)

    def put(self, message: Any) -> None:
        """A sensor_msgs/CameraInfo from its topic."""
        try:
            camera = camera_from_info(message, self._rectified)
        except Dust3rError as error:
            self._ignored(str(error))
            return
        if camera is None:
            self._ignored("its K is all zeros, which says uncalibrated; a field of view is assumed")
            return
        with self._arrived:
            self._cameras[from_time(message.header.stamp)] = camera
            while len(self._cameras) > KEPT_INFOS:
                self._cameras.popitem(last=False)
            self._arrived.notify_all()

    def _ignored(self, why: str) -> None:
        self._warn(f"CameraInfo ignored: {why}")
        with self._arrived:
            self._first_wait_over = True
            self._arrived.notify_all()

    def at(self, stamp: int, first_wait: float) -> Camera | None:
        """The camera of an image: that of its own stamp, else the newest, else None. One image waits `first_wait` seconds for the first."""
        with self._arrived:
            if self._in_step:
                self._arrived.wait_for(lambda: stamp in self._cameras, IN_STEP_WAIT)
            elif first_wait and not self._cameras:
                self._arrived.wait_for(lambda: stamp in self._cameras or self._first_wait_over, first_wait)
                self._first_wait_over = True
            self._in_step = stamp in self._cameras
            if stamp in self._cameras:
                return self._cameras[stamp]
            return next(reversed(self._cameras.values())) if self._cameras else None


class Intake:
    """Makes Frames; used by the tracking thread alone."""

    def __init__(self, infos: CameraInfos, warn: Warn, info_wait: Callable[[], float]) -> None:
        """`info_wait()`: seconds that an image may wait for the first CameraInfo; 0 if nobody publishes any."""
        self._infos, self._warn, self._info_wait = infos, warn, info_wait
        self._last_stamp: int | None = None
        self._size: tuple[int, int] | None = None

    def restart(self) -> None:
        """Any stamp may come next."""
        self._last_stamp = None
        self._infos.restart()

    def frame(self, message: Any) -> Frame:
        """Raises a Dust3rError if the image cannot be used, StaleFrameError or TimeJumpError if its stamp is not newer than the last."""
        stamp = from_time(message.header.stamp)
        if self._last_stamp is not None and stamp <= self._last_stamp:
            back = (self._last_stamp - stamp) * 1e-9
            if self._last_stamp - stamp > JUMP:
                raise TimeJumpError(f"the images' stamps jumped back by {back:.1f} s")
            raise StaleFrameError(f"an image's stamp is {back:.3f} s before the last one's, or the same: dropped; stamps must grow")
        image = decode_image(message)
        height, width = image.shape[:2]
        camera = self._infos.at(stamp, self._info_wait())
        if camera is not None and (camera.width, camera.height) != (width, height):
            self._warn(
                f"CameraInfo ignored: it is for {camera.width}x{camera.height}, the images are {width}x{height}; a field of view is assumed"
            )
            camera = None
        if self._size not in (None, (width, height)):
            was = "{}x{}".format(*self._size or ())
            self._warn(f"the images are {width}x{height} from now on, they were {was}: the map goes on with the new size")
        self._size, self._last_stamp = (width, height), stamp
        return Frame(stamp, image, camera)
