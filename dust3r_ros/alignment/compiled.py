"""The inner loops of the alignment, compiled for the CPU (Numba): depths along rays, residuals and their derivatives.

`kernels.alignment_twins` says the same in torch. Sides lie image by image: image n is seen by the sides start[n] to start[n + 1], and side
m is image n as pair[m] has it. S pixels an image. Everything is float64 but for `shared`.
"""

from __future__ import annotations

import numba
import numpy as np

EDGE, POSE = 7, 6
TINY = 1e-300


@numba.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def fit_depths(start, pair, points, weight, pixels, rotation, position, focal, linear, offset, depth, eps, rounds, anew, cost, begin, end):
    """Each pixel's depth to the least sum of sqrt(distance^2 + eps^2), in place, for images `begin` to `end`; cost [N] gets their sums.

    `linear` [E, 3, 3] is scale times rotation of each pair, `offset` [E, 3]. `anew`: from the best single pair's depth.
    """
    count, most = depth.shape[1], 0
    for n in range(begin, end):
        most = max(most, start[n + 1] - start[n])
    a, b = np.empty((most, count)), np.empty((most, count))
    square, ray = np.empty(count), np.empty((2, count))
    top, bottom, best = np.empty(count), np.empty(count), np.empty(count)
    to_camera, at = np.empty((3, 3)), np.empty(3)
    for n in range(begin, end):
        sides = start[n + 1] - start[n]
        r, f = rotation[n], focal[n]
        for s in range(count):
            ray[0, s], ray[1, s] = pixels[n, 0, s] / f, pixels[n, 1, s] / f
            square[s] = ray[0, s] * ray[0, s] + ray[1, s] * ray[1, s] + 1.0
        for k in range(sides):
            m = start[n] + k
            # In the camera's own frame, where a ray is (x, y, 1).
            for i in range(3):
                at[i] = 0.0
                for j in range(3):
                    at[i] += r[j, i] * (offset[pair[m], j] - position[n, j])
                    to_camera[i, j] = 0.0
                    for h in range(3):
                        to_camera[i, j] += r[h, i] * linear[pair[m], h, j]
            for s in range(count):
                px, py, pz = points[m, 0, s], points[m, 1, s], points[m, 2, s]
                x = to_camera[0, 0] * px + to_camera[0, 1] * py + to_camera[0, 2] * pz + at[0]
                y = to_camera[1, 0] * px + to_camera[1, 1] * py + to_camera[1, 2] * pz + at[1]
                z = to_camera[2, 0] * px + to_camera[2, 1] * py + to_camera[2, 2] * pz + at[2]
                along = (x * ray[0, s] + y * ray[1, s] + z) / square[s]
                # What is left is summed, not subtracted: far points would lose it.
                u, v, w = x - along * ray[0, s], y - along * ray[1, s], z - along
                a[k, s], b[k, s] = along, u * u + v * v + w * w + eps * eps
        if anew:
            best[:] = np.inf
            for c in range(sides):
                top[:] = 0.0
                for k in range(sides):
                    for s in range(count):
                        d = a[c, s] - a[k, s]
                        top[s] += weight[start[n] + k, s] * np.sqrt(square[s] * d * d + b[k, s])
                for s in range(count):
                    if weight[start[n] + c, s] > 0 and top[s] < best[s]:
                        best[s], depth[n, s] = top[s], a[c, s]
        for _ in range(rounds):
            top[:], bottom[:] = 0.0, TINY
            for k in range(sides):
                for s in range(count):
                    d = depth[n, s] - a[k, s]
                    say = weight[start[n] + k, s] / np.sqrt(square[s] * d * d + b[k, s])
                    top[s] += say * a[k, s]
                    bottom[s] += say
            for s in range(count):
                depth[n, s] = top[s] / bottom[s]
        total = 0.0
        for k in range(sides):
            for s in range(count):
                d = depth[n, s] - a[k, s]
                total += weight[start[n] + k, s] * np.sqrt(square[s] * d * d + b[k, s])
        cost[n] = total


@numba.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def linearise(
    start,
    pair,
    points,
    weight,
    pixels,
    rotation,
    position,
    focal,
    linear,
    offset,
    depth,
    eps,
    alpha,
    products,
    gradient,
    shared,
    slope,
    begin,
    end,
):
    """Residuals' second-order model of images `begin` to `end`, each alone.

    products [M, 8, 8]: J' W J summed over the pixels, of each side's 7 unknowns and the log focal length. gradient [M, 8]: J' w r.
    shared [7 M + N, S] float32: J' W d of every pixel over the root of d' W d; image n's sides first, the focal length's row last.
    slope [N, S]: d' w r over the root of d' W d.
    """
    count = depth.shape[1]
    direction, bent, world = np.empty((3, count)), np.empty((3, count)), np.empty((3, count))
    own, lean, down = np.empty(count), np.empty(count), np.empty(count)
    row = np.empty((7, count))
    for n in range(begin, end):
        r, t, f = rotation[n], position[n], focal[n]
        for s in range(count):
            x, y = pixels[n, 0, s] / f, pixels[n, 1, s] / f
            for i in range(3):
                direction[i, s] = r[i, 0] * x + r[i, 1] * y + r[i, 2]
                bent[i, s] = -(r[i, 0] * x + r[i, 1] * y) * depth[n, s]
                world[i, s] = direction[i, s] * depth[n, s] + t[i]
        own[:], lean[:], down[:] = 0.0, 0.0, 0.0
        first_row = EDGE * start[n] + n
        for m in range(start[n], start[n + 1]):
            to_world, at, out, slant = linear[pair[m]], offset[pair[m]], products[m], gradient[m]
            _side(points[m], weight[m], to_world, at, world, direction, bent, eps, alpha, row, own, lean, down, out, slant)
            first = first_row + EDGE * (m - start[n])
            for i in range(EDGE):
                for s in range(count):
                    shared[first + i, s] = np.float32(row[i, s])
        for s in range(count):
            own[s] = 1.0 / np.sqrt(own[s]) if own[s] > 0 else 0.0
            slope[n, s] = down[s] * own[s]
        last_row = EDGE * start[n + 1] + n
        for at in range(first_row, last_row):
            for s in range(count):
                shared[at, s] *= np.float32(own[s])
        for s in range(count):
            shared[last_row, s] = np.float32(lean[s] * own[s])


@numba.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _side(points, weight, linear, offset, world, direction, bent, eps, alpha, row, own, lean, down, out, slant):
    """One side's part of `linearise`: products into `out`, the gradient into `slant`, J' W d into `row`; the rest is added to."""
    count = points.shape[1]
    l00, l01, l02, o0 = linear[0, 0], linear[0, 1], linear[0, 2], offset[0]
    l10, l11, l12, o1 = linear[1, 0], linear[1, 1], linear[1, 2], offset[1]
    l20, l21, l22, o2 = linear[2, 0], linear[2, 1], linear[2, 2], offset[2]
    # Sums of one side; the names say which columns: 0-2 rotation, 3-5 translation, 6 log scale, 7 log focal length.
    p00 = p01 = p02 = p03 = p04 = p05 = p06 = p07 = 0.0
    p11 = p12 = p13 = p14 = p15 = p16 = p17 = 0.0
    p22 = p23 = p24 = p25 = p26 = p27 = 0.0
    p33 = p34 = p35 = p36 = p37 = 0.0
    p44 = p45 = p46 = p47 = 0.0
    p55 = p56 = p57 = p66 = p67 = p77 = 0.0
    g0 = g1 = g2 = g3 = g4 = g5 = g6 = g7 = 0.0
    for s in range(count):
        a, b, c = points[0, s], points[1, s], points[2, s]
        x = l00 * a + l01 * b + l02 * c + o0
        y = l10 * a + l11 * b + l12 * c + o1
        z = l20 * a + l21 * b + l22 * c + o2
        rx, ry, rz = world[0, s] - x, world[1, s] - y, world[2, s] - z
        inverse = 1.0 / np.sqrt(rx * rx + ry * ry + rz * rz + eps * eps)
        w = weight[s] * inverse
        nx, ny, nz = rx * inverse, ry * inverse, rz * inverse
        # W = w (I - alpha n n')
        wxx, wyy, wzz = w * (1.0 - alpha * nx * nx), w * (1.0 - alpha * ny * ny), w * (1.0 - alpha * nz * nz)
        wxy, wxz, wyz = -w * alpha * nx * ny, -w * alpha * nx * nz, -w * alpha * ny * nz
        dx, dy, dz = direction[0, s], direction[1, s], direction[2, s]
        qx, qy, qz = wxx * dx + wxy * dy + wxz * dz, wxy * dx + wyy * dy + wyz * dz, wxz * dx + wyz * dy + wzz * dz
        # J = ([y]x, -I, -y, bent); J' v = (v x y.., -v, -y.v, bent.v)
        row[0, s], row[1, s], row[2, s] = qy * z - qz * y, qz * x - qx * z, qx * y - qy * x
        row[3, s], row[4, s], row[5, s] = -qx, -qy, -qz
        row[6, s] = -(x * qx + y * qy + z * qz)
        fx, fy, fz = bent[0, s], bent[1, s], bent[2, s]
        lean[s] += fx * qx + fy * qy + fz * qz
        own[s] += dx * qx + dy * qy + dz * qz
        vx, vy, vz = w * rx, w * ry, w * rz
        down[s] += dx * vx + dy * vy + dz * vz
        g0 += vy * z - vz * y
        g1 += vz * x - vx * z
        g2 += vx * y - vy * x
        g3 -= vx
        g4 -= vy
        g5 -= vz
        g6 -= x * vx + y * vy + z * vz
        g7 += fx * vx + fy * vy + fz * vz
        # W [y]x, column by column
        ax, ay, az = wxy * z - wxz * y, wyy * z - wyz * y, wyz * z - wzz * y
        bx, by, bz = wxz * x - wxx * z, wyz * x - wxy * z, wzz * x - wxz * z
        cx, cy, cz = wxx * y - wxy * x, wxy * y - wyy * x, wxz * y - wyz * x
        ex, ey, ez = wxx * x + wxy * y + wxz * z, wxy * x + wyy * y + wyz * z, wxz * x + wyz * y + wzz * z
        hx, hy, hz = wxx * fx + wxy * fy + wxz * fz, wxy * fx + wyy * fy + wyz * fz, wxz * fx + wyz * fy + wzz * fz
        p00 += ay * z - az * y
        p01 += by * z - bz * y
        p02 += cy * z - cz * y
        p11 += bz * x - bx * z
        p12 += cz * x - cx * z
        p22 += cx * y - cy * x
        p03 -= ax
        p04 -= ay
        p05 -= az
        p13 -= bx
        p14 -= by
        p15 -= bz
        p23 -= cx
        p24 -= cy
        p25 -= cz
        p06 -= ax * x + ay * y + az * z
        p16 -= bx * x + by * y + bz * z
        p26 -= cx * x + cy * y + cz * z
        p07 += ax * fx + ay * fy + az * fz
        p17 += bx * fx + by * fy + bz * fz
        p27 += cx * fx + cy * fy + cz * fz
        p33 += wxx
        p34 += wxy
        p35 += wxz
        p44 += wyy
        p45 += wyz
        p55 += wzz
        p36 += ex
        p46 += ey
        p56 += ez
        p66 += x * ex + y * ey + z * ez
        p37 -= hx
        p47 -= hy
        p57 -= hz
        p67 -= x * hx + y * hy + z * hz
        p77 += fx * hx + fy * hy + fz * hz
    slant[0], slant[1], slant[2], slant[3], slant[4], slant[5], slant[6], slant[7] = g0, g1, g2, g3, g4, g5, g6, g7
    out[0, 0], out[0, 1], out[0, 2], out[0, 3], out[0, 4], out[0, 5], out[0, 6], out[0, 7] = p00, p01, p02, p03, p04, p05, p06, p07
    out[1, 1], out[1, 2], out[1, 3], out[1, 4], out[1, 5], out[1, 6], out[1, 7] = p11, p12, p13, p14, p15, p16, p17
    out[2, 2], out[2, 3], out[2, 4], out[2, 5], out[2, 6], out[2, 7] = p22, p23, p24, p25, p26, p27
    out[3, 3], out[3, 4], out[3, 5], out[3, 6], out[3, 7] = p33, p34, p35, p36, p37
    out[4, 4], out[4, 5], out[4, 6], out[4, 7] = p44, p45, p46, p47
    out[5, 5], out[5, 6], out[5, 7], out[6, 6], out[6, 7], out[7, 7] = p55, p56, p57, p66, p67, p77
    for i in range(8):
        for j in range(i):
            out[i, j] = out[j, i]
