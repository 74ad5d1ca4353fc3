"""Pictures placed in a saved map, against a simulated room's truth.

The map is the Mapper's with the flow estimator; the pictures were left out of it. `python examples/localisation.py picture.png` draws one
of them under the outlines of a keyframe, which fit only where it is placed rightly.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from dust3r_ros.estimators import create_estimator
from dust3r_ros.geometry import Similarity, rotation_angle
from dust3r_ros.io.map_file import load_map, save_map
from dust3r_ros.mapping import Frame, Mapper, localise
from dust3r_ros.simulation import room_sequence

views = list(room_sequence(30, 160, 120))
unseen = (7, 17, 27)
tiles = views[0].image.reshape(6, 20, 8, 20, 3).swapaxes(1, 2).reshape(48, 20, 20, 3)[np.random.default_rng(0).permutation(48)]
scrambled = tiles.reshape(6, 8, 20, 20, 3).swapaxes(1, 2).reshape(120, 160, 3)  # the same pieces, but nowhere in the room

mapper = Mapper(estimator=create_estimator("flow", 160))
for k, view in enumerate(views):
    if k not in unseen:
        mapper.add(Frame(view.stamp, view.image, view.camera))
path = Path(tempfile.mkdtemp()) / "room.map"
save_map(path, mapper.snapshot())

# Another day, another process: a map, a picture, and where it was taken.
snapshot, estimator = load_map(path), create_estimator("flow", 160)
found = localise(snapshot, estimator, views[17].image, views[17].camera)
print(found.reason)

# The map's frame and scale are its own: the first keyframe, whose true pose and depth are known here, brings them to the room's.
first, truth = snapshot.keyframes[0], next(view for view in views if view.stamp == snapshot.keyframes[0].stamp)
known = first.depth > 0
scale = float(np.median(truth.depth[known] / first.depth[known]))
turn = truth.pose[:3, :3] @ first.pose[:3, :3].T
to_room = Similarity(scale, turn, truth.pose[:3, 3] - scale * turn @ first.pose[:3, 3])
for k in unseen:
    found = localise(snapshot, estimator, views[k].image, views[k].camera)
    pose = to_room.apply_pose(found.pose)
    print(f"frame {k} position error: {100 * np.linalg.norm(pose[:3, 3] - views[k].pose[:3, 3]):.2f} cm")
    print(f"frame {k} rotation error: {np.degrees(rotation_angle(pose[:3, :3].T @ views[k].pose[:3, :3])):.2f} degrees")
    print(f"frame {k} likeness: {found.likeness:.2f}")

found = localise(snapshot, estimator, scrambled, views[0].camera)
print(f"scrambled picture found: {found.pose is not None} ({found.reason})")

if len(sys.argv) > 1:  # the picture under a keyframe's outlines as seen from the pose found, and from 30 cm beside it
    import cv2

    from dust3r_ros.geometry import inverse_pose, transform_points

    view, keyframe = views[17], snapshot.keyframes[-1]
    pose = localise(snapshot, estimator, view.image, view.camera).pose
    aside = pose.copy()
    aside[:3, 3] += 0.3 / scale * pose[:3, 0]
    world = transform_points(keyframe.pose, keyframe.camera.rays() * keyframe.depth[..., None])
    outlines = (cv2.Canny(cv2.resize(keyframe.image, (160, 120)), 80, 180) > 0) & (keyframe.depth > 0)
    panels = []
    for at in (pose, aside):
        panel = cv2.resize(view.image, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
        for u, v in view.camera.project(transform_points(inverse_pose(at), world[outlines])):
            if 0 <= u < 160 and 0 <= v < 120:
                cv2.circle(panel, (round(3 * u + 1), round(3 * v + 1)), 1, (255, 60, 200), -1)
        panels.append(panel)
    cv2.imwrite(sys.argv[1], np.hstack(panels)[..., ::-1])
