"""What comes out for images that go in: TF, depth in the camera's own pixels, and a map for those who come late."""

from __future__ import annotations

import logging
from dataclasses import replace

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from dust3r_ros_msgs.msg import KeyframeGraph, Status
from nav_msgs.msg import Odometry, Path
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from support.rig import CAMERA_FRAME, LATCHED, image_message
from support.truth import depth_error
from tf2_msgs.msg import TFMessage

from dust3r_ros.geometry.rotations import inverse_pose, pose_matrix
from dust3r_ros.ros.conversion import (
    as_data,
    camera_info_message,
    cloud_from_message,
    depth_array,
    from_time,
    matrix_from_pose,
    matrix_from_transform,
    to_header,
)
from dust3r_ros.ros.placement import OPTICAL_IN_BODY

BASE_CAMERA = pose_matrix(np.eye(3), (0.2, 0.0, 0.4)) @ OPTICAL_IN_BODY


def test_the_tf_tree_is_connected_and_carries_the_images_stamps(rig, views: list) -> None:
    running = rig()
    heard = running.listen(TFMessage, "/tf")
    running.show(views)
    placed = running.until(lambda: len(heard) >= 3 and list(heard), "three frames are placed")
    stamps = {view.stamp for view in views}
    for message in placed:
        assert [(item.header.frame_id, item.child_frame_id) for item in message.transforms] == [("map", "odom"), ("odom", CAMERA_FRAME)]
        assert {from_time(item.header.stamp) for item in message.transforms} <= stamps


def test_a_leading_slash_of_the_images_frame_is_no_part_of_its_name(rig, views: list) -> None:
    running = rig()
    heard = running.listen(TFMessage, "/tf")
    for view in views[:3]:
        running.send(image_message(view.image, view.stamp, f"/{CAMERA_FRAME}"))
    running.until(lambda: heard, "a frame is placed")
    assert {item.child_frame_id for message in heard for item in message.transforms} == {"odom", CAMERA_FRAME}


def test_with_a_base_frame_the_base_is_the_child_and_the_map_starts_there(rig, views: list) -> None:
    running = rig(base_frame="base_link")
    running.static_transform("base_link", CAMERA_FRAME, BASE_CAMERA)
    running.until(lambda: running.node.buffer.parent(CAMERA_FRAME), "the static transform is known")
    heard, path = running.listen(TFMessage, "/tf"), running.listen(Path, "~/path", LATCHED)
    running.show(views)
    running.until(lambda: heard and path and len(path[-1].poses) > 2, "the base is placed")
    assert {item.child_frame_id for message in heard for item in message.transforms} == {"odom", "base_link"}
    assert from_time(path[-1].poses[0].header.stamp) == running.node.mapper.trajectory()[0][0] == views[0].stamp

    def is_the_mappers() -> bool:  # once the last correction is published too
        _, first = running.node.mapper.trajectory()[0]
        return np.allclose(matrix_from_pose(path[-1].poses[0].pose), BASE_CAMERA @ first @ inverse_pose(BASE_CAMERA), atol=1e-6)

    running.until(is_the_mappers, "the path starts where the Mapper says the base was")
    start = matrix_from_pose(path[-1].poses[0].pose)
    np.testing.assert_allclose(start, np.eye(4), atol=0.1)  # but for what the alignment corrected since


def test_a_frame_with_a_parent_already_gets_no_second_one(rig, views: list) -> None:
    running = rig()
    running.static_transform("camera_link", CAMERA_FRAME, OPTICAL_IN_BODY)
    running.until(lambda: running.node.buffer.parent(CAMERA_FRAME), "the static transform is known")
    heard, odometry = running.listen(TFMessage, "/tf"), running.listen(Odometry, "~/odometry")
    running.show(views)
    running.until(lambda: odometry, "the odometry goes on")
    assert heard == []


def test_depth_confidence_and_camera_info_fit_the_image_pixel_by_pixel(rig, views: list) -> None:
    running = rig()
    depths, infos = running.listen(Image, "~/depth/image"), running.listen(CameraInfo, "~/depth/camera_info")
    confidences = running.listen(Image, "~/confidence/image")
    running.show(views)
    running.until(lambda: len(depths) >= 2 and len(infos) == len(depths) == len(confidences), "two keyframes have depth")
    height, width = views[0].image.shape[:2]
    for message in (*depths, *infos, *confidences):
        assert (message.width, message.height, message.header.frame_id) == (width, height, CAMERA_FRAME)
    np.testing.assert_allclose(np.array(infos[0].k).reshape(3, 3), views[0].camera.matrix)
    by_stamp = {from_time(message.header.stamp): np.nan_to_num(depth_array(message)) for message in depths}
    certain = {from_time(message.header.stamp): depth_array(message) for message in confidences}
    assert set(by_stamp) == set(certain) == {from_time(info.header.stamp) for info in infos}
    assert views[0].stamp in by_stamp  # the first keyframe's depth comes with the second's
    error, covered = depth_error(by_stamp, certain, {view.stamp: view.depth for view in views})
    assert error < 0.15
    assert covered > 0.3


def test_one_who_comes_late_gets_the_whole_map(rig, views: list) -> None:
    running = rig()
    running.show(views)
    running.until(lambda: running.node.book.now.keyframes >= 2, "there is a map")
    clouds, graphs, paths = (
        running.listen(kind, topic, LATCHED) for kind, topic in ((PointCloud2, "~/map"), (KeyframeGraph, "~/keyframes"), (Path, "~/path"))
    )
    running.until(lambda: clouds and graphs and paths, "the late listener has map, graph and path")
    cloud = cloud_from_message(clouds[-1])
    assert len(cloud) > 1000
    assert np.median(cloud.points[:, 0]) > 0  # ahead of where the camera started
    graph = graphs[-1]
    assert len(graph.keyframes) == running.node.book.now.keyframes
    known = {keyframe.index for keyframe in graph.keyframes}
    assert graph.edges_i
    assert set(graph.edges_i) | set(graph.edges_j) == known
    assert all(keyframe.in_window for keyframe in graph.keyframes)
    later = running.listen(PointCloud2, "~/map", LATCHED)
    running.until(lambda: later, "a second late listener has it too, from the middleware")
    assert len(later[-1].data) == len(clouds[-1].data)


def test_the_newest_keyframe_s_cloud_is_in_the_map_frame(rig, views: list) -> None:
    running = rig()
    heard = running.listen(PointCloud2, "~/cloud")
    running.show(views)
    running.until(lambda: heard, "a keyframe's cloud has come")
    assert heard[0].header.frame_id == "map"
    assert from_time(heard[0].header.stamp) in {view.stamp for view in views}
    assert len(cloud_from_message(heard[0])) > 500


def test_odometry_says_how_far_it_is_to_be_believed_and_less_so_when_lost(rig, views: list) -> None:
    running = rig()
    heard = running.listen(Odometry, "~/odometry")
    running.show(views)
    running.until(lambda: heard, "there is odometry")
    count, known = len(heard), heard[-1].pose.covariance[0]
    assert known > 0
    assert heard[-1].twist.covariance[0] > 1e3  # nobody measured it
    grey = np.full_like(views[0].image, 127)
    for k in (1, 2):
        running.send(image_message(grey, views[-1].stamp + k * 1_000_000_000))
    running.until(lambda: len(heard) >= count + 2, "the odometry of lost frames")
    assert known < heard[-2].pose.covariance[0] < heard[-1].pose.covariance[0]


def test_status_and_diagnostics_carry_rate_times_and_memory(rig, views: list) -> None:
    running = rig()
    statuses, diagnostics = running.listen(Status, "~/status"), running.listen(DiagnosticArray, "/diagnostics")
    running.show(views)
    running.until(lambda: statuses and statuses[-1].map_points and statuses[-1].frames == len(views), "a status with a map of all images")
    status = statuses[-1]
    assert status.keyframes >= 2
    assert (status.state, status.model) == (Status.TRACKING, "flow")
    assert status.frame_rate > 0
    assert {"track", "encode", "estimate", "align", "fuse"} <= set(status.stage_names)
    assert len(status.stage_seconds) == len(status.stage_names)
    assert status.memory_bytes > 50_000_000
    assert np.isnan(status.scale_uncertainty)
    ours = running.until(lambda: [item for array in diagnostics for item in array.status if item.name == running.name], "our diagnostics")
    assert {"frame rate (Hz)", "dropped frames", "keyframes", "resident memory (MB)"} <= {pair.key for pair in ours[-1].values}


def test_nothing_is_built_for_nobody(rig, views: list) -> None:
    """Without a listener the whole map is not even collected."""
    running = rig()
    running.show(views)
    running.until(lambda: running.node.book.now.keyframes >= 2, "there is a map")
    assert not running.node._map_publishers.latched_is_due()
    assert running.node.book.now.map_points == 0


def test_tf_agrees_with_the_path(rig, views: list) -> None:
    running = rig()
    heard, paths = running.listen(TFMessage, "/tf"), running.listen(Path, "~/path", LATCHED)
    running.show(views)
    last = views[-1].stamp
    running.until(lambda: paths and from_time(paths[-1].poses[-1].header.stamp) == last and heard, "the last frame is on the path")
    newest = next(message for message in reversed(heard) if from_time(message.transforms[0].header.stamp) == last)
    map_odom, odom_camera = (matrix_from_transform(item.transform) for item in newest.transforms)
    np.testing.assert_allclose(map_odom @ odom_camera, matrix_from_pose(paths[-1].poses[-1].pose), atol=1e-6)


def test_compressed_images_do_as_well(rig, views: list) -> None:
    running = rig(image_transport="compressed")
    assert running.node._images.topic_name == f"{running.space}/camera/image_raw/compressed"
    for view in views:
        _, data = cv2.imencode(".png", view.image[..., ::-1])
        running.send(CompressedImage(header=to_header(view.stamp, CAMERA_FRAME), format="png", data=as_data(data)))
    running.until(lambda: running.node.book.now.keyframes >= 2, "there is a map")


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_rectified_images_go_with_the_rectified_camera(rig, views: list, transport: str, caplog: pytest.LogCaptureFixture) -> None:
    """As image_proc's image_rect, whose CameraInfo is the raw image's."""
    topic = f"rect/{transport}/image_rect_color"
    with caplog.at_level(logging.INFO, "dust3r_ros"):
        running = rig(image=topic, image_transport=transport, camera_info="camera/camera_info", camera_info_wait=5.0)
    assert caplog.text.count("has rectified images") == 1
    view = views[0]
    raw = replace(view.camera, fx=150.0, model="plumb_bob", distortion=(0.3, 0.1, 0.0, 0.0))
    info = camera_info_message(raw, to_header(view.stamp, CAMERA_FRAME))
    info.p = camera_info_message(view.camera, info.header).p
    if transport == "raw":
        running.send(image_message(view.image, view.stamp), info)
    else:
        _, data = cv2.imencode(".png", view.image[..., ::-1])
        running.send(CompressedImage(header=info.header, format="png", data=as_data(data)), info)
    assert running.node.infos.at(view.stamp, 0.0) == view.camera


def test_each_image_goes_with_the_camera_info_of_its_own_stamp(rig, views: list) -> None:
    """A zooming camera: the calibration changes from image to image."""
    running = rig(**{"camera_info_wait": 5.0})
    seen = []
    add = running.node.threads.front.add
    running.node.threads.front.add = lambda frame, tell: seen.append(frame.camera) or add(frame, tell)
    for k, view in enumerate(views[:3]):
        camera = replace(view.camera, fx=200.0 + k, fy=200.0 + k)
        running._images.publish(image_message(view.image, view.stamp))  # comes first, and waits
        running._infos.publish(camera_info_message(camera, to_header(view.stamp, CAMERA_FRAME)))
        running.until(lambda k=k: len(seen) == k + 1, "the image is mapped")
    assert [camera.fx for camera in seen] == [200.0, 201.0, 202.0]
