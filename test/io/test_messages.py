"""Every encoding, with padded rows and either byte order, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from dust3r_ros.geometry import Camera
from dust3r_ros.io.messages import MessageError, camera_from_info, decode_depth, decode_image, is_image_type, is_rectified

H, W = 12, 16
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (H, W, 3)).astype(np.uint8)
RGBA = np.dstack([RGB, RGB[..., 0]])
SMOOTH = cv2.resize((RNG.integers(-15, 15, (3, 4, 3)) + np.array([180, 100, 60])).astype(np.uint8), (W, H), interpolation=cv2.INTER_LINEAR)


def message(pixels: np.ndarray, encoding: str, padding: int = 0, big: bool = False, **changes: Any) -> SimpleNamespace:
    """A sensor_msgs/Image with `padding` bytes after each row."""
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<"))
    rows = np.frombuffer(np.ascontiguousarray(stored).tobytes(), np.uint8).reshape(pixels.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    fields = {
        "height": pixels.shape[0], "width": pixels.shape[1], "encoding": encoding, "is_bigendian": int(big),
        "step": padded.shape[1], "data": padded.tobytes(),
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **changes})


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("8UC3", RGB[..., ::-1]),
        ("rgba8", np.dstack([RGB, RGB[..., 0]])),
        ("bgra8", np.dstack([RGB[..., ::-1], RGB[..., 0]])),
        ("rgb16", RGB.astype(np.uint16) * 257),
        ("bgr16", RGB[..., ::-1].astype(np.uint16) * 257),
    ],
)
def test_colour_comes_out_as_it_went_in(encoding: str, pixels: np.ndarray, padding: int) -> None:
    for big in (False, True):
        np.testing.assert_array_equal(decode_image(message(pixels, encoding, padding, big)), RGB)


def test_rows_padded_to_the_width_of_other_channels_are_no_mistake() -> None:
    """Alignment to 64 bytes makes rgb8 of 16 pixels as wide as rgba8; what follows the image's last row is nobody's business."""
    padded = message(RGB, "rgb8", padding=W)
    np.testing.assert_array_equal(decode_image(padded), RGB)
    np.testing.assert_array_equal(decode_image(message(RGB, "rgb8", data=RGB.tobytes() + bytes(100))), RGB)


@pytest.mark.parametrize(("encoding", "kind"), [("mono8", np.uint8), ("8UC1", np.uint8), ("mono16", np.uint16)])
def test_grey_comes_out_as_three_equal_channels(encoding: str, kind: type) -> None:
    grey = RGB[..., 0]
    pixels = grey if kind is np.uint8 else grey.astype(np.uint16) * 256 + 3
    for big in (False, True):
        np.testing.assert_array_equal(decode_image(message(pixels, encoding, 3, big)), np.repeat(grey[..., None], 3, axis=2))


def test_raw_16_bits_are_scaled_to_the_brightest() -> None:
    pixels = (RGB[..., 0].astype(np.uint16) * 4).clip(max=1000)
    assert decode_image(message(pixels, "16UC1")).max() == 255


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_give_the_colour_that_made_them(pattern: str, bits: int) -> None:
    colour = (200, 90, 30)
    mosaic = np.zeros((H, W), np.uint16 if bits == 16 else np.uint8)
    for place, letter in zip(((0, 0), (0, 1), (1, 0), (1, 1)), pattern, strict=True):
        mosaic[place[0] :: 2, place[1] :: 2] = colour["rgb".index(letter)] * (256 if bits == 16 else 1)
    image = decode_image(message(mosaic, f"bayer_{pattern}{bits}", 4, big=bits == 16))
    np.testing.assert_allclose(image[2:-2, 2:-2], np.broadcast_to(colour, (H - 4, W - 4, 3)), atol=1)


def yuv_planes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    yuv = cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2YUV_I420)
    u, v = (yuv[H + k * H // 4 : H + (k + 1) * H // 4].reshape(H // 2, W // 2) for k in range(2))
    return yuv[:H], u, v


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_packed_yuv(encoding: str) -> None:
    y, u, v = yuv_planes()
    chroma = np.empty((H, W), np.uint8)
    chroma[:, 0::2], chroma[:, 1::2] = np.repeat(u, 2, axis=0), np.repeat(v, 2, axis=0)
    pair = (chroma, y) if encoding in ("yuv422", "uyvy") else (y, chroma)
    image = decode_image(message(np.dstack(pair), encoding, 6))
    assert np.abs(image.astype(int) - SMOOTH).mean() < 4


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
@pytest.mark.parametrize("padding", [0, 8])
def test_planar_yuv(encoding: str, padding: int) -> None:
    y, u, v = yuv_planes()
    colour = np.dstack((u, v) if encoding == "nv12" else (v, u)).reshape(H // 2, W)
    packed = message(np.vstack([y, colour]), encoding, padding, height=H)
    assert np.abs(decode_image(packed).astype(int) - SMOOTH).mean() < 4


@pytest.mark.parametrize("form", ["png", "jpeg", "rgb8; jpeg compressed bgr8"])
def test_compressed_images(form: str) -> None:
    _, data = cv2.imencode(".png" if form == "png" else ".jpg", cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2BGR))
    image = decode_image(SimpleNamespace(format=form, data=data.tobytes()))
    assert np.abs(image.astype(int) - SMOOTH).mean() < (1e-9 if form == "png" else 6)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (message(RGB, "rgb7"), "'rgb7' is not supported"),
        (message(RGB, "rgb8", height=0), "empty"),
        (message(RGB, "rgb8", width=0), "empty"),
        (message(RGB, "rgb8", data=RGB.tobytes()[:-1]), "cut short"),
        (message(RGB[..., 0], "rgb8"), "step is 16"),
        (message(RGB, "bgra8"), "encoding or the step is wrong"),
        (message(RGBA, "rgb8"), "as of rgba8 or bgra8"),
        (message(RGBA, "rgb8", step=3 * W), "as of rgba8 or bgra8"),
        (message(RGB, "mono8"), "as of rgb8 or bgr8"),
        (message(RGB, "mono8", step=W), "as of rgb8 or bgr8"),
        (message(RGB[..., 0].astype(np.uint16) * 257 + 1, "bayer_rggb8"), "as of mono16"),
        (message(RGB[..., 0], "rgb8"), "as of mono8"),
        (message(RGB, "nv12", height=H + 1), "even"),
        (message(RGB[..., 0], "nv12"), "too short"),
        (SimpleNamespace(format="jpeg", data=b"not a picture"), "cannot be read"),
        (SimpleNamespace(format="jpeg", data=b""), "0 bytes"),
    ],
)
def test_what_cannot_be_decoded_is_refused_in_one_line(wrong: SimpleNamespace, says: str) -> None:
    with pytest.raises(MessageError, match=says) as refusal:
        decode_image(wrong)
    assert "\n" not in str(refusal.value)


def test_depth_in_metres_from_millimetres_and_floats() -> None:
    metres = np.where(RGB[..., 0] > 100, RGB[..., 0] / 50.0, 0.0).astype(np.float32)
    millimetres = np.rint(metres * 1000).astype(np.uint16)
    np.testing.assert_allclose(decode_depth(message(millimetres, "16UC1", 2, big=True)), metres, atol=5e-4)
    with_holes = np.where(metres > 0, metres, np.nan).astype(np.float32)
    np.testing.assert_array_equal(decode_depth(message(with_holes, "32FC1", 4)), metres)
    with pytest.raises(MessageError, match="32FC1"):
        decode_depth(message(RGB, "rgb8"))


def info(**changes: Any) -> SimpleNamespace:
    fields = {
        "width": 640, "height": 480, "distortion_model": "plumb_bob", "d": [0.1, -0.2, 0.0, 0.0, 0.0],
        "k": [500.0, 0, 320.0, 0, 510.0, 240.0, 0, 0, 1], "p": [0.0] * 12, "binning_x": 0, "binning_y": 0,
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **changes})


def test_camera_info_becomes_a_camera() -> None:
    camera = camera_from_info(info())
    assert camera is not None
    assert (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy) == (640, 480, 500, 510, 320, 240)
    assert camera.distortion == (0.1, -0.2, 0.0, 0.0, 0.0)
    assert not camera.assumed
    straight = camera_from_info(info(d=[0.0] * 5))
    assert straight is not None
    assert straight.model == "pinhole"
    fisheye = camera_from_info(info(distortion_model="fisheye", d=[0.1, 0, 0, 0]))
    assert fisheye is not None
    assert fisheye.model == "equidistant"


def test_eight_coefficients_of_plumb_bob_are_the_rational_models() -> None:
    lens = [0.1, 0.2, 0.001, 0.002, 0.3, 0.4, 0.5, 0.6]
    camera = camera_from_info(info(distortion_model="plumb_bob", d=lens))
    assert (camera.model, camera.distortion) == ("rational_polynomial", tuple(lens))


@pytest.mark.parametrize(
    ("name", "coefficients"), [("plumb_bob", [0.1] * 6), ("equidistant", [0.1] * 5), ("rational_polynomial", [0.1] * 12)]
)
def test_coefficients_that_a_model_has_not_are_refused(name: str, coefficients: list[float]) -> None:
    with pytest.raises(MessageError, match=f"{len(coefficients)} coefficients of '{name}'"):
        camera_from_info(info(distortion_model=name, d=coefficients))


@pytest.mark.parametrize("name", ["equidistant", "fisheye"])
@pytest.mark.parametrize("coefficients", [[0.0] * 4, []])
def test_a_fisheye_without_coefficients_is_no_pinhole(name: str, coefficients: list[float]) -> None:
    camera = camera_from_info(info(distortion_model=name, d=coefficients))
    assert camera is not None
    assert camera.project([1.0, 0.0, 1.0])[0] == pytest.approx(320 + 500 * np.pi / 4)


def test_of_the_rectified_image_p_says_the_camera() -> None:
    projection = [450.0, 0, 310.0, -45.0, 0, 460.0, 250.0, 0, 0, 0, 1, 0]  # of a stereo pair's right camera
    changes = {"p": projection, "distortion_model": "wobbly", "binning_x": 2, "binning_y": 2}
    assert camera_from_info(info(**changes), rectified=True) == Camera(640, 480, 450, 460, 310, 250).resized(320, 240)
    assert camera_from_info(info(), rectified=True) == Camera(640, 480, 500, 510, 320, 240)
    assert camera_from_info(info(k=[0.0] * 9), rectified=True) is None
    with pytest.raises(MessageError, match="fx = nan"):
        camera_from_info(info(p=[float("nan")] * 12), rectified=True)


def test_region_of_interest_and_binning_follow_the_image() -> None:
    camera = camera_from_info(info(roi=SimpleNamespace(x_offset=100, y_offset=50, width=400, height=200), binning_x=2, binning_y=2))
    assert camera is not None
    assert (camera.width, camera.height) == (200, 100)
    assert camera.fx == 250.0
    assert camera.cx == pytest.approx((220 + 0.5) / 2 - 0.5)


def test_all_zeros_say_uncalibrated() -> None:
    assert camera_from_info(info(k=[0.0] * 9)) is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (info(k=[float("nan"), 0, 320, 0, 500, 240, 0, 0, 1]), "fx = nan"),
        (info(k=[500.0, 0, 320, 0, float("inf"), 240, 0, 0, 1]), "fy = inf"),
        (info(k=[0.0, 0, 320, 0, 500, 240, 0, 0, 1]), "no camera"),
        (info(width=0), "no camera"),
        (info(d=[float("nan")] * 5), "distortion"),
        (info(distortion_model="wobbly"), "'wobbly'"),
    ],
)
def test_a_camera_info_of_nonsense_is_refused_by_what_is_wrong(wrong: SimpleNamespace, says: str) -> None:
    with pytest.raises(MessageError, match=says):
        camera_from_info(wrong)


def test_image_types_of_rclpy_and_rosbags() -> None:
    assert is_image_type("sensor_msgs/msg/Image")
    assert is_image_type("sensor_msgs/msg/CompressedImage")
    assert not is_image_type("sensor_msgs/msg/CameraInfo")


@pytest.mark.parametrize(
    "topic", ["/camera/image_rect", "image_rect_color", "/left/image_rect/compressed", "/ir/image_rect_raw", "/a/rectified/"]
)
def test_topics_that_say_their_images_are_rectified(topic: str) -> None:
    assert is_rectified(topic)


@pytest.mark.parametrize(
    "topic", ["/camera/image_raw", "/rect/image_raw", "/camera/image_corrected", "/direct", "/image_unrectified/compressed"]
)
def test_topics_that_do_not(topic: str) -> None:
    assert not is_rectified(topic)
