"""The pose between two views in two ways, from the flow estimator's pointmaps, against a simulated room's truth.

The flow estimator solves a window jointly, so that both directions of a pair agree whatever they are worth. To have two opinions the way
back is asked of a second estimator that sees another view too.
"""

import numpy as np

from dust3r_ros.estimators import create_estimator
from dust3r_ros.matching import pose_difference, relative_pose
from dust3r_ros.simulation import room_sequence

sequence = room_sequence(10, 160, 120)
views = {0: sequence[0], 1: sequence[8], 2: sequence[4]}
truth = np.linalg.inv(views[0].pose) @ views[1].pose  # camera 1 to camera 0, metres


def predict(pair, window):
    estimator = create_estimator("flow", 160)
    tokens = {key: estimator.encode(views[key].image, views[key].camera) for key in window}
    return estimator.estimate(tokens, [pair])[0], tokens


forward, tokens = predict((0, 1), window=(0, 1))
backward, _ = predict((1, 0), window=(0, 2, 1))
found = relative_pose(forward, backward, tokens[1].camera)

print(f"chosen way: {found.chosen}")
print(f"inliers: {100 * found.inliers:.1f} %")
print(f"agreement of rotations: {found.rotation_degrees:.3f} degrees")
print(f"agreement of directions: {found.translation_degrees:.3f} degrees")
for name, pose in (("pnp", found.pnp), ("procrustes", found.procrustes)):
    turned, moved = pose_difference(pose, truth)
    print(f"{name} rotation error: {turned:.3f} degrees")
    print(f"{name} direction error: {moved:.3f} degrees")
