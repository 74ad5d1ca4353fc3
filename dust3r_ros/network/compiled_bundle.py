"""The steps of `two_view_bundle` that nobody learns from, compiled for the CPU (Numba): a pair's cells in one loop instead of in many small
operations of torch, which say the same.

Of each view the rows of the equations are made as its cells move in front of the other camera: unknowns are that motion (translation,
rotation), the own and the other log focal length, and the log scale of the view's depths. How these follow the pair's unknowns is linear.
"""

from __future__ import annotations

import numba
import numpy as np

from dust3r_ros.network.compiled_sums import product

COUNT = 9
OWN, OTHER, SCALE = 6, 7, 8  # of the rows' unknowns; the pair's are the first focal length, the second, and the second view's scale


@numba.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _rows(places, found, weight, depth_weight, log_depth, off, turn, shift, focals, doubt, nearest, least, rows, depths):
    """rows [10, 3 M]: those of both residuals and of the depths' priors once every depth is at its best, and what is left of each.

    depths [11, M]: how a cell's depth follows the unknowns, its gradient and its curvature.
    """
    cells = len(weight)
    own_focal, other_focal = focals
    jacobian = np.empty((2, COUNT), dtype=np.float32)
    for m in range(cells):
        depth = np.exp(log_depth[m])
        sx, sy = places[m, 0] / own_focal, places[m, 1] / own_focal
        ax, ay = depth * (turn[0, 0] * sx + turn[0, 1] * sy), depth * (turn[1, 0] * sx + turn[1, 1] * sy)
        az = depth * (turn[2, 0] * sx + turn[2, 1] * sy)
        tx, ty, tz = ax + depth * turn[0, 2], ay + depth * turn[1, 2], az + depth * turn[2, 2]
        z = tz + shift[2]
        inverse = 1 / max(z, nearest)
        x, y = (tx + shift[0]) * inverse, (ty + shift[1]) * inverse
        gain = other_focal * inverse
        by_x, by_y = (tx - x * tz) * gain, (ty - y * tz) * gain
        jacobian[0, 0], jacobian[0, 1], jacobian[0, 2] = gain, 0.0, -x * gain
        jacobian[1, 0], jacobian[1, 1], jacobian[1, 2] = 0.0, gain, -y * gain
        jacobian[0, 3], jacobian[0, 4], jacobian[0, 5] = -x * y * other_focal, (1 + x * x) * other_focal, -y * other_focal
        jacobian[1, 3], jacobian[1, 4], jacobian[1, 5] = -(1 + y * y) * other_focal, x * y * other_focal, x * other_focal
        jacobian[0, OWN], jacobian[1, OWN] = -(ax - x * az) * gain, -(ay - y * az) * gain
        jacobian[0, OTHER], jacobian[1, OTHER] = x * other_focal, y * other_focal
        jacobian[0, SCALE], jacobian[1, SCALE] = by_x, by_y
        res_x, res_y = x * other_focal - found[m, 0], y * other_focal - found[m, 1]
        far = (res_x * res_x + res_y * res_y) * weight[m] / (doubt * doubt)
        kept = weight[m] / (1 + far) if z > nearest else 0.0
        prior = depth_weight[m] + least
        curvature = kept * (by_x * by_x + by_y * by_y) + prior
        root, prior_root = np.sqrt(kept), np.sqrt(prior)
        for k in range(COUNT):
            mixed = kept * (jacobian[0, k] * by_x + jacobian[1, k] * by_y)
            follows = mixed / curvature
            rows[k, m] = root * (jacobian[0, k] - by_x * follows)
            rows[k, cells + m] = root * (jacobian[1, k] - by_y * follows)
            rows[k, 2 * cells + m] = prior_root * follows
            depths[k, m] = mixed
        rows[COUNT, m], rows[COUNT, cells + m], rows[COUNT, 2 * cells + m] = root * res_x, root * res_y, -prior_root * off[m]
        depths[COUNT, m] = kept * (by_x * res_x + by_y * res_y) + prior * off[m]
        depths[COUNT + 1, m] = curvature


@numba.njit(cache=True, nogil=True, error_model="numpy")
def missed(one, two, rotation, translation, logs, depth_1, depth_2, nearest, missed_1, missed_2):
    """missed_1, missed_2 [M, 2]: pixels from where a view's cells were found to where they should be; the other arguments as of `steps`."""
    back, shift = rotation.T.copy(), -(rotation.T @ translation)
    focal_1, focal_2 = np.exp(logs[0]), np.exp(logs[1])
    _missed(one[0], one[1], depth_1, back, shift, focal_1, focal_2, nearest, missed_1)
    _missed(two[0], two[1], depth_2, rotation, translation, focal_2, focal_1, nearest, missed_2)


@numba.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _missed(places, found, log_depth, turn, shift, own_focal, other_focal, nearest, missed):
    for m in range(len(found)):
        depth = np.exp(log_depth[m])
        x, y = depth * places[m, 0] / own_focal, depth * places[m, 1] / own_focal
        z = max(turn[2, 0] * x + turn[2, 1] * y + turn[2, 2] * depth + shift[2], nearest)
        missed[m, 0] = (turn[0, 0] * x + turn[0, 1] * y + turn[0, 2] * depth + shift[0]) / z * other_focal - found[m, 0]
        missed[m, 1] = (turn[1, 0] * x + turn[1, 1] * y + turn[1, 2] * depth + shift[1]) / z * other_focal - found[m, 1]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def steps(one, two, alike, scale_weight, rotation, translation, logs, depth_1, depth_2, dampings, doubts, turning, bounds):
    """Steps of one pair, in place: rotation [3, 3], translation [3], logs [3] (both focal lengths, the second prior's scale), log depths.

    one, two: each view's places, where found, weights, prior log depths and their weights, prior log focal length and its weight. alike:
    inverse variance of the log focal lengths' difference, and the difference beyond which they are those of two cameras. dampings, doubts:
    of each step, of which the first `turning` only turn. bounds: least depth, least curvature, and the most that a step moves, turns, and
    changes logarithms by.
    """
    nearest, least, largest_move, largest_turn, largest_log = bounds
    cells = len(depth_1), len(depth_2)
    rows_1, rows_2 = np.empty((COUNT + 1, 3 * cells[0]), np.float32), np.empty((COUNT + 1, 3 * cells[1]), np.float32)
    depths_1, depths_2 = np.empty((COUNT + 2, cells[0]), np.float32), np.empty((COUNT + 2, cells[1]), np.float32)
    from_1, from_2 = np.zeros((COUNT, COUNT)), np.zeros((COUNT, COUNT))
    for k in range(6):
        from_2[k, k] = 1.0
    from_1[OWN, 6] = from_1[OTHER, 7] = from_2[OWN, 7] = from_2[OTHER, 6] = from_2[SCALE, 8] = 1.0
    turned, back, shift = np.empty((3, 3)), np.empty((3, 3)), np.empty(3)
    for step in range(len(dampings)):
        focals = np.exp(logs[0]), np.exp(logs[1])
        focals_back = focals[1], focals[0]
        for i in range(3):
            shift[i] = 0.0
            for j in range(3):
                back[i, j] = rotation[j, i]
                shift[i] -= rotation[j, i] * translation[j]
        for i in range(3):
            for j in range(3):
                from_1[i, j] = from_1[3 + i, 3 + j] = -back[i, j]
                before, after = (i + 2) % 3, (i + 1) % 3  # rows of the cross product with `shift`
                from_1[i, 3 + j] = -(shift[after] * back[before, j] - shift[before] * back[after, j])
        off_1, off_2 = depth_1 - one[3], depth_2 - two[3] - np.float32(logs[2])
        doubt = doubts[step]
        _rows(one[0], one[1], one[2], one[4], depth_1, off_1, back, shift, focals, doubt, nearest, least, rows_1, depths_1)
        _rows(two[0], two[1], two[2], two[4], depth_2, off_2, rotation, translation, focals_back, doubt, nearest, least, rows_2, depths_2)
        curvature_1, gradient_1 = _sums(rows_1, from_1)
        curvature_2, gradient_2 = _sums(rows_2, from_2)
        curvature, gradient = curvature_1 + curvature_2, gradient_1 + gradient_2
        apart = logs[0] - logs[1]
        held = alike[0] / (1 + (apart / alike[1]) ** 2) ** 2
        curvature[6, 6] += one[6] + held
        curvature[7, 7] += two[6] + held
        curvature[8, 8] += scale_weight
        curvature[6, 7] -= held
        curvature[7, 6] -= held
        gradient[6] += one[6] * (logs[0] - one[5]) + held * apart
        gradient[7] += two[6] * (logs[1] - two[5]) - held * apart
        gradient[8] += scale_weight * logs[2]
        if not (np.isfinite(curvature).all() and np.isfinite(gradient).all()):
            rotation[:], translation[:], logs[:], depth_1[:], depth_2[:] = np.nan, np.nan, np.nan, np.nan, np.nan
            return  # the solver would raise
        first, last = (3, 8) if step < turning else (0, COUNT)
        moved = np.zeros(COUNT)
        size = np.empty(last - first)
        for k in range(first, last):
            size[k - first] = 1 / np.sqrt(max(curvature[k, k], least))
        scaled = curvature[first:last, first:last] * size.reshape(-1, 1) * size
        for k in range(last - first):
            scaled[k, k] += dampings[step] + least
        moved[first:last] = -size * np.linalg.solve(scaled, size * gradient[first:last])
        moved[:3] /= max(1.0, np.sqrt((moved[:3] ** 2).sum()) / largest_move)
        moved[3:6] /= max(1.0, np.sqrt((moved[3:6] ** 2).sum()) / largest_turn)
        for k in range(6, COUNT):
            moved[k] = min(max(moved[k], -largest_log), largest_log)
        _turn(moved[3:6], turned)
        rotation[:] = turned @ rotation
        translation[:] = turned @ translation + moved[:3]
        logs += moved[6:]
        _deepen(depth_1, depths_1, from_1 @ moved, 0.0, largest_log)
        _deepen(depth_2, depths_2, from_2 @ moved, moved[8], largest_log)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sums(rows, unknowns):
    """Curvature and gradient of the pair's unknowns."""
    curvature, gradient = np.empty((COUNT, COUNT)), np.empty(COUNT)
    for a in range(COUNT):
        gradient[a] = product(rows[a], rows[COUNT])
        for b in range(a + 1):
            curvature[a, b] = curvature[b, a] = product(rows[a], rows[b])
    whole, half = np.zeros((COUNT, COUNT)), np.zeros((COUNT, COUNT))
    for a in range(COUNT):
        for b in range(COUNT):
            for k in range(COUNT):
                half[a, b] += curvature[a, k] * unknowns[k, b]
    left = np.zeros(COUNT)
    for a in range(COUNT):
        for k in range(COUNT):
            left[a] += unknowns[k, a] * gradient[k]
            for b in range(COUNT):
                whole[a, b] += unknowns[k, a] * half[k, b]
    return whole, left


@numba.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _deepen(log_depth, depths, moved, scale, largest):
    """Each depth to its best when the rows' unknowns have moved."""
    by = moved.astype(np.float32)
    for m in range(len(log_depth)):
        change = depths[COUNT, m]
        for k in range(COUNT):
            change += depths[k, m] * by[k]
        log_depth[m] += np.float32(scale) + min(max(-change / depths[COUNT + 1, m], -np.float32(largest)), np.float32(largest))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _turn(turn, rotation):
    """Rodrigues' formula."""
    x, y, z = turn
    angle = max(np.sqrt(x * x + y * y + z * z), 1e-6)
    a, b = np.sin(angle) / angle, 2 * (np.sin(angle / 2) / angle) ** 2
    crossed = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rotation[:] = np.eye(3) + a * crossed + b * (crossed @ crossed)
