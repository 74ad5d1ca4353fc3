"""Similarities between sets of points, robust and compiled: the alignment's start needs one for every link and every pair."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def fit_similarity(source, target, weight, rounds):
    """rotation [3, 3], translation [3], scale and mean distance of the weighted similarity from source to target, [3, S] each.

    Umeyama (1991), reweighted `rounds` times for the plain norm of the distance. Scale 0: not determined.
    """
    count = source.shape[1]
    say = weight.copy()
    rotation, translation, scale, mean_distance = np.eye(3), np.zeros(3), 0.0, 0.0
    total_weight = weight.sum()
    for _ in range(rounds + 1):
        mass = say.sum()
        if not mass > 0.0:
            return rotation, translation, 0.0, 0.0
        source_mean, target_mean = np.zeros(3), np.zeros(3)
        for i in range(3):
            a = b = 0.0
            for s in range(count):
                a += say[s] * source[i, s]
                b += say[s] * target[i, s]
            source_mean[i], target_mean[i] = a / mass, b / mass
        covariance, spread = np.zeros((3, 3)), 0.0
        for i in range(3):
            for j in range(3):
                a = 0.0
                for s in range(count):
                    a += say[s] * (target[i, s] - target_mean[i]) * (source[j, s] - source_mean[j])
                covariance[i, j] = a / mass
            a = 0.0
            for s in range(count):
                a += say[s] * (source[i, s] - source_mean[i]) ** 2
            spread += a / mass
        u, values, vt = np.linalg.svd(covariance)
        if not (spread > 0.0 and values[1] > 1e-9 * values[0]):
            return rotation, translation, 0.0, 0.0
        sign = 1.0 if np.linalg.det(u) * np.linalg.det(vt) > 0 else -1.0
        flip = np.eye(3)
        flip[2, 2] = sign
        rotation = u @ flip @ vt
        scale = (values[0] + values[1] + sign * values[2]) / spread
        if not scale > 0.0:
            return rotation, translation, 0.0, 0.0
        linear = scale * rotation
        translation = target_mean - linear @ source_mean
        mean_distance = 0.0
        distance = np.empty(count)
        for s in range(count):
            x, y, z = source[0, s], source[1, s], source[2, s]
            dx = linear[0, 0] * x + linear[0, 1] * y + linear[0, 2] * z + translation[0] - target[0, s]
            dy = linear[1, 0] * x + linear[1, 1] * y + linear[1, 2] * z + translation[1] - target[1, s]
            dz = linear[2, 0] * x + linear[2, 1] * y + linear[2, 2] * z + translation[2] - target[2, s]
            distance[s] = np.sqrt(dx * dx + dy * dy + dz * dz)
            mean_distance += weight[s] * distance[s]
        mean_distance /= total_weight
        for s in range(count):
            say[s] = weight[s] / (distance[s] + 0.1 * mean_distance + 1e-300)
    return rotation, translation, scale, mean_distance


@numba.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def fit_focal(points, weight, pixels, rounds):
    """Focal length in pixels of a camera that sees points [3, S] at pixels [2, S] from its centre; 0: not determined.

    DUSt3R, section 3.3: Weiszfeld's iteration.
    """
    count = points.shape[1]
    focal = 0.0
    for turn in range(rounds + 1):
        top = bottom = 0.0
        for s in range(count):
            z = points[2, s]
            if weight[s] > 0.0 and z > 1e-9:
                x, y = points[0, s] / z, points[1, s] / z
                u, v = pixels[0, s], pixels[1, s]
                say = weight[s]
                if turn > 0:
                    say /= np.sqrt((u - focal * x) ** 2 + (v - focal * y) ** 2) + 1e-3
                top += say * (x * u + y * v)
                bottom += say * (x * x + y * y)
        if not bottom > 0.0:
            return 0.0
        focal = top / bottom
    return focal
