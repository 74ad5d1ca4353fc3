"""The lifecycle node `dust3r`: images in; TF, odometry, depth and the map out."""

from __future__ import annotations

import gc
import traceback
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidTopicNameException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dust3r_ros.alignment import warm_up
from dust3r_ros.errors import Dust3rError
from dust3r_ros.estimators import Estimator
from dust3r_ros.mapping import ConfigError, Localiser, Mapper, MapUpdate, Rig, RigMapper
from dust3r_ros.mapping.config import settings
from dust3r_ros.ros.errors import ParameterError
from dust3r_ros.ros.health import HealthBook
from dust3r_ros.ros.image_topics import topics
from dust3r_ros.ros.intake import CameraInfos, Intake, StaleFrameError, TimeJumpError
from dust3r_ros.ros.map_commands import MapCommands
from dust3r_ros.ros.metric_inputs import MetricInputs
from dust3r_ros.ros.parameters import ONE_CAMERA, Parameters
from dust3r_ros.ros.placement import Placement
from dust3r_ros.ros.publishers import MapPublishers
from dust3r_ros.ros.reports import Reports
from dust3r_ros.ros.rig_input import RigInput
from dust3r_ros.ros.services import MapServices
from dust3r_ros.ros.throttle import Throttle
from dust3r_ros.ros.transform_listener import TransformListener
from dust3r_ros.ros.transforms import TransformBuffer
from dust3r_ros.ros.two_threads import Listener, TwoThreads
from dust3r_ros.ros.watchdog import ImageWatchdog

TICK = 0.25  # seconds between two looks at what is due


class Dust3rNode(LifecycleNode):
    """Callbacks only put things down. One thread tracks the camera and says where it is; another owns the Mapper and publishes the map."""

    def __init__(self, **options: Any) -> None:
        super().__init__("dust3r", **options)
        self._configured = self._active = False
        self._camera_frame = ""  # not known before the first image
        self._warn = Throttle(self.get_logger().warning)
        self.book = HealthBook()
        self._teardown = ExitStack()  # what has been built, to be taken down in reverse
        self._listening = ExitStack()  # what activation adds, likewise
        self.parameters = Parameters(self, may_rebuild=lambda: not self._configured, on_change=self._apply_parameters)

    # ---- one image: received, mapped, told -------------------------------------------------------------------------------------------

    def _on_image(self, message: Any) -> None:
        self.book.arrival()
        if not self.book.now.paused:
            self.threads.tracking.offer(message)

    def _track_image(self, message: Any) -> None:
        """On the tracking thread."""
        frame = self._next_frame(message)
        if frame is None:
            return
        if self.rig is None:
            self._camera_frame = self.parameters.node.camera_frame or message.header.frame_id.lstrip("/") or "camera"
        self.threads.follow(frame)

    def _map_at_once(self, frame: Any) -> None:
        """On the mapping thread: a rig, and a Localiser without a map, track by themselves."""
        if self.rig is not None and isinstance(self.mapper, RigMapper):
            self.rig.mount_on(self.mapper)
            self._camera_frame = self.rig.frame_of(self.mapper.lead)
        self._hand_over_metres()
        update = self.mapper.add(frame)
        if self.rig is not None:
            self._camera_frame = self.rig.frame_of(update.camera)
            update = replace(update, reason="; ".join([update.reason, *self.rig.problems.values()]))
            self.book.set(cameras=self.rig.states(update.agreeing))
        with self.threads.camera:
            self._tell_motion(update)
            self._tell_state(update)
        self._tell_map(update)

    def _tell_motion(self, update: MapUpdate) -> None:
        self._map_publishers.motion(update, self._camera_frame)

    def _tell_state(self, update: MapUpdate, again: bool = False) -> None:
        self.book.handled(update, self._camera_frame, again)

    def _tell_map(self, update: MapUpdate | None) -> None:
        """On the mapping thread: what a frame has changed; None: all has moved."""
        if update is None:
            self._map_publishers.changed()
        else:
            self._map_publishers.keyframes(update, self._camera_frame)
            self.book.mapped(update)
            if update.is_keyframe:
                self.book.set(keyframes=len(self.mapper.standpoints))
        self.book.set_numbers(self.mapper.scale, self.mapper.pieces)

    @property
    def mapper(self) -> Mapper | Localiser:
        """The map, of the mapping thread."""
        return self.threads.mapper

    @mapper.setter
    def mapper(self, mapper: Mapper | Localiser) -> None:
        self.threads.take(mapper)

    def is_idle(self) -> bool:
        """Whether all images that came in have been told of, and the map has done what they asked of it."""
        return self.threads.is_idle

    def _hand_over_metres(self) -> None:
        self.metric_inputs.hand_over(self.mapper, self._camera_frame)

    def _next_frame(self, message: Any) -> Any:
        try:
            return self.intake.frame(message)
        except StaleFrameError as error:
            self.book.unusable(str(error), stale=True)
            self._warn(str(error))
        except TimeJumpError as error:
            choice = self.parameters.node.on_time_jump
            simulated = bool(self.get_parameter("use_sim_time").value)
            if choice == "reset" or (choice == "auto" and simulated):
                self.get_logger().warning(f"{error}: the map starts anew (on_time_jump: {choice})")
                self.commands.do(self.commands.reset_map).result()
                return self.intake.frame(message)
            self.book.unusable(f"{error}: dropped to keep the map; call ~/reset to start anew from here", stale=True)
            self._warn(f"{error}: dropped to keep the map; call ~/reset to start anew from here, or set on_time_jump to reset")
        return None

    def _on_failure(self, error: Exception, by_map: bool) -> None:
        """An image that could not be used: said, counted, and on to the next."""
        if by_map and not self._active:
            return  # the node is shutting down
        if isinstance(error, Dust3rError):
            self.book.unusable(str(error), by_map=by_map)
            self._warn(f"image not used: {error}")
        else:
            self.book.unusable(f"{type(error).__name__}: {error}", by_map=by_map)
            trace = "".join(traceback.format_exception(error))
            self._warn(f"image not used, by a fault of this program: {type(error).__name__}: {error}", details=trace)

    # ---- lifecycle -------------------------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:  # noqa: ARG002
        """Build the estimator (this loads a model) and everything that does not depend on images."""
        try:
            self._build()
        except Exception as error:  # rclpy would swallow it
            self._log_refusal("configured", error)
            self._tear_down()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _log_refusal(self, what: str, error: Exception) -> None:
        name = "" if isinstance(error, Dust3rError) else f"{type(error).__name__}: "
        self.get_logger().error(f"the node cannot be {what}: {name}{error}")

    def _build(self) -> None:
        config = self.parameters.node
        mapper = self._new_mapper()
        self._camera_frame = config.camera_frame
        self._configured = True
        self.book.set(model=mapper.estimator.name)
        self.buffer = TransformBuffer()
        self.placement = Placement(config, self.buffer)
        self.metric_inputs = MetricInputs(self, config, self.buffer, self._warn)
        self._teardown.callback(self.metric_inputs.destroy)
        self.infos = CameraInfos(self._warn)
        inputs = self.parameters.cameras_inputs()
        self.rig = RigInput(self, self.parameters, inputs, self.buffer, self._warn) if inputs else None
        self.intake: Intake | RigInput = self.rig or Intake(self.infos, self._warn, self._info_wait)
        frame_of = None if self.rig is None else self.rig.frame_of
        self._map_publishers = MapPublishers(self, self.parameters, self.placement, self._warn, frame_of)
        self._teardown.callback(self._map_publishers.destroy)
        self.reports = Reports(self, self.book)
        self._teardown.callback(self.reports.destroy)
        tell = Listener(self._tell_motion, self._tell_state, self._tell_map, self._hand_over_metres, self._on_failure)
        self.threads = TwoThreads(mapper, self._track_image, self._map_at_once, tell)
        self._teardown.callback(self._stop_threads)  # before what they publish with
        self.commands = MapCommands(self.threads, self.book, self._map_publishers, self.placement, self.intake, self._new_mapper)
        self._teardown.callback(MapServices(self, self.commands).destroy)
        if config.map_file:
            self.get_logger().info(self.commands.replace_map(self.commands.read_map(Path(config.map_file).expanduser())))
        self._warmed_up = self.threads.mapping.submit(warm_up)
        self._warmed_up.add_done_callback(self._log_failure)
        transforms = TransformListener(self, config, self.buffer, self.metric_inputs.moved, self._warn)
        self._teardown.callback(transforms.destroy)
        for name, value in {**settings(config), **settings(self.parameters.mapper)}.items():
            self.get_logger().debug(f"{name}: {value}")

    def is_warmed_up(self) -> bool:
        """Whether everything is compiled: some 20 s after the first start on a machine. Images before that are overtaken."""
        return self._configured and self._warmed_up.done()

    def _new_mapper(self, estimator: Estimator | None = None) -> Mapper | Localiser:
        """With an empty map, as `mode` says."""
        if self.parameters.node.camera_names:
            if self.parameters.node.mode == "localisation":
                raise ParameterError(ONE_CAMERA)
            return RigMapper(Rig({}), self.parameters.mapper, estimator, background=True)
        if self.parameters.node.mode == "localisation":
            return Localiser(self.parameters.mapper, estimator)
        return Mapper(self.parameters.mapper, estimator, background=True)

    def _stop_threads(self) -> None:
        if not self.threads.stop():
            self.get_logger().warning("the estimator is still busy: not waiting for it any longer")
        self.threads.let_go()

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen to the camera."""
        try:
            heard = self._listen()
        except Exception as error:  # rclpy would swallow it
            self._log_refusal("activated", error)
            self._stop_listening()
            return TransitionCallbackReturn.FAILURE
        # A clock that always runs: ROS's own stands while a bag is paused.
        ticks = self.create_timer(
            TICK, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME), callback_group=MutuallyExclusiveCallbackGroup()
        )
        self._listening.callback(self.destroy_timer, ticks)
        self._since_report = self._since_latched = 1e9
        self._active = True
        self.get_logger().info(f"images from {heard}, model {self.mapper.estimator.name}")
        return super().on_activate(state)

    def _listen(self) -> str:
        """To all cameras; the topics of their images."""
        self._listening.callback(self.threads.clear)
        config = self.parameters.node
        reliability = ReliabilityPolicy.RELIABLE if config.reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(
            depth=1 if reliability == ReliabilityPolicy.BEST_EFFORT else 2, history=HistoryPolicy.KEEP_LAST, reliability=reliability
        )
        try:
            if self.rig is None:
                return self._listen_to_one(qos)
            self._listening.callback(self.rig.stop)
            return self.rig.listen(qos, self._on_image)
        except (InvalidTopicNameException, ValueError) as error:
            reason, group = " ".join(str(error).split()).rstrip("^ "), "" if self.rig is None else "rig."
            raise ParameterError(f"{reason}: give '{group}image' and '{group}camera_info' names such as /camera/image_raw") from None

    def _listen_to_one(self, qos: QoSProfile) -> str:
        """To the one camera there is; the topic of its images."""
        config = self.parameters.node
        compressed = config.image_transport == "compressed"
        image_topic, info_topic = topics(config.image, config.camera_info, compressed)
        self._images = self.create_subscription(CompressedImage if compressed else Image, image_topic, self._on_image, qos)
        self._listening.callback(self.destroy_subscription, self._images)
        self.infos.of_images(self._images.topic_name)
        info_qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._info = self.create_subscription(CameraInfo, info_topic, self.infos.put, info_qos)
        self._listening.callback(self.destroy_subscription, self._info)
        self.watchdog = ImageWatchdog(self, self._images.topic_name, config.image_transport, qos, self.get_logger().warning)
        return str(self._images.topic_name)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening; the map stays."""
        self._stop_listening()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:  # noqa: ARG002
        """Let the map and the model go."""
        self._tear_down()
        gc.collect()  # they refer to each other in cycles, and the next model would be loaded beside them
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:  # noqa: ARG002
        self._tear_down()
        return TransitionCallbackReturn.SUCCESS

    def _stop_listening(self) -> None:
        self._active = False
        self._listening.close()

    def _tear_down(self) -> None:
        self._stop_listening()
        self._teardown.close()
        self._configured = False
        self.book = HealthBook()

    def destroy_node(self) -> None:
        self._tear_down()
        super().destroy_node()

    # ---- now and then ----------------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        config = self.parameters.node
        patience = 0.0 if self.book.now.paused else config.watchdog
        if self.rig is None:
            finding = self.watchdog.look(self.book.last_arrival, patience)
        else:
            self.rig.flush(self._on_image)
            finding = self.rig.look(patience)
        if self.threads.mapping.is_idle:
            self.threads.mapping.submit(self._hand_over_metres).add_done_callback(self._log_failure)
        self._since_report += TICK
        self._since_latched += TICK
        due = self._since_report >= config.publish.status_period
        self.reports.publish(self.threads.dropped, finding, config.map_frame, only_changes=not due)
        if due:
            self._since_report = 0.0
        publishers = self._map_publishers
        if self._since_latched >= config.publish.map_period and (
            publishers.latched_is_due() or (self.reports.has_listeners() and publishers.count_is_due())
        ):
            self._since_latched = 0.0
            self.threads.mapping.submit(self._tell_the_whole).add_done_callback(self._log_failure)

    def _tell_the_whole(self) -> None:
        """Map, path and graph to those who listen, and the map's size to the status."""
        self.threads.hand_in()
        self._map_publishers.latched(self.mapper)
        self.book.set(map_points=self._map_publishers.count(self.mapper))

    def _log_failure(self, done: Future[Any]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._warn(f"a job was not done: {type(error).__name__}: {error}")

    def _info_wait(self) -> float:
        return self.parameters.node.camera_info_wait if self.count_publishers(self._info.topic_name) else 0.0

    def _apply_parameters(self) -> None:
        """Accepted changes reach the Mapper between two images."""
        if self._configured:
            config = self.parameters.mapper
            self.threads.mapping.submit(lambda: self._configure_mapper(config)).add_done_callback(self._log_failure)

    def _configure_mapper(self, config: Any) -> None:
        if config != self.mapper.config:
            try:
                self.mapper.configure(config)
                self.threads.configure(config)
            except ConfigError as error:
                self.get_logger().error(str(error))
        if isinstance(self.mapper, Localiser) != (self.parameters.node.mode == "localisation"):
            self.get_logger().info(f"mode {self.parameters.node.mode}: {self.commands.replace_map(self.mapper.snapshot())}")
