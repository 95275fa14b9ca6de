"""The whole field at a block of points of one head, as one kernel: deformation, neighbours, local networks, blend, and
the gradient backwards. One file, because numba keeps machine code by the age of the file that asks for it.

Written for the machine: loops over tiles of rows, all of one network. What is computed is said in `deformation.py` and
`identity.py`; names are the same. `Net` does not change while a model lives, `Head` is one person with one expression.

softplus with beta = 100 is max(x, 0) + log1p(exp(-|100 x|)) / 100. The exponential is a polynomial raised to the 32nd
power by squaring, the logarithm a polynomial: the result is off by less than 1e-7 (a float32 of size 1 has 6e-8).
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from mononphm_core.model.compiled.jit import compiled

TILE = 32
"""Rows of one product: they and the weights of a layer stay in the nearest caches."""
FAR = np.float32(20.0)
"""torch's own threshold: beyond it softplus is linear."""


def _polynomial(values: Any, low: float, high: float, degree: int) -> tuple[np.float32, ...]:
    """Coefficients of the interpolant at Chebyshev's points, lowest first."""
    fitted = Chebyshev.interpolate(values, degree, domain=[low, high]).convert(kind=Polynomial)
    return tuple(np.float32(c) for c in fitted.coef)


E0, E1, E2, E3, E4, E5, E6 = _polynomial(lambda s: np.exp(-s), 0.0, 20.0 / 32, 6)
L0, L1, L2, L3, L4, L5, L6, L7, L8, L9 = _polynomial(np.log1p, 0.0, 1.0, 9)
ZERO, ONE, HUNDRED = np.float32(0.0), np.float32(1.0), np.float32(100.0)
HUNDREDTH, PART = np.float32(0.01), np.float32(1.0 / 32)


@compiled
def _decay(x):
    """exp(-|100 x|), at most 20 deep."""
    y = abs(x) * HUNDRED
    s = (y if y < FAR else FAR) * PART
    e = E0 + s * (E1 + s * (E2 + s * (E3 + s * (E4 + s * (E5 + s * E6)))))
    e = e * e
    e = e * e
    e = e * e
    e = e * e
    return e * e


@compiled
def _softplus(x, e):
    low = L4 + e * (L5 + e * (L6 + e * (L7 + e * (L8 + e * L9))))
    return (ZERO if x < ZERO else x) + HUNDREDTH * (L0 + e * (L1 + e * (L2 + e * (L3 + e * low))))


@compiled
def activate(x, rows):
    """softplus of the first rows, in place."""
    for r in range(rows):
        for j in range(x.shape[1]):
            v = x[r, j]
            x[r, j] = _softplus(v, _decay(v))


@compiled
def activate_with_slope(x, slope, rows):
    """The same, and its derivative: 1 / (1 + exp(-100 x))."""
    for r in range(rows):
        for j in range(x.shape[1]):
            v = x[r, j]
            e = _decay(v)
            x[r, j] = _softplus(v, e)
            slope[r, j] = (ONE if v > ZERO else e) / (ONE + e)


@compiled
def rectify(x, rows):
    """max(x, 0), in place."""
    for r in range(rows):
        for j in range(x.shape[1]):
            v = x[r, j]
            x[r, j] = ZERO if v < ZERO else v


@compiled
def add_product(a, w, c, rows):
    """c += a w for the first rows: two rows and four inner steps at once, so that a processor's units are full."""
    inner, width = w.shape
    even, fours = rows - rows % 2, inner - inner % 4
    for r in range(0, even, 2):
        for k in range(0, fours, 4):
            a0, a1, a2, a3 = a[r, k], a[r, k + 1], a[r, k + 2], a[r, k + 3]
            b0, b1, b2, b3 = a[r + 1, k], a[r + 1, k + 1], a[r + 1, k + 2], a[r + 1, k + 3]
            for j in range(width):
                w0, w1, w2, w3 = w[k, j], w[k + 1, j], w[k + 2, j], w[k + 3, j]
                c[r, j] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                c[r + 1, j] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
        for k in range(fours, inner):
            a0, b0 = a[r, k], a[r + 1, k]
            for j in range(width):
                c[r, j] += a0 * w[k, j]
                c[r + 1, j] += b0 * w[k, j]
    for r in range(even, rows):
        for k in range(inner):
            a0 = a[r, k]
            for j in range(width):
                c[r, j] += a0 * w[k, j]


@compiled
def dot(a, b):
    """Sum of products of two rows."""
    total = ZERO
    for j in range(a.shape[0]):
        total += a[j] * b[j]
    return total


class Net(NamedTuple):
    """Weights of a model as the kernel wants them: (in, out) forwards and, with `_back`, (out, in)."""

    bands: int
    skip: int
    enter: Any
    middle: Any
    again: Any
    leave: Any
    leave_bias: Any
    enter_back: Any
    middle_back: Any
    again_back: Any
    geo_enter: Any
    geo_middle: Any
    geo_bias: Any
    geo_leave: Any
    geo_leave_bias: Any
    geo_middle_back: Any
    feature_0: Any
    feature_0_bias: Any
    feature_1: Any
    feature_1_bias: Any
    app_bands: int
    app_enter: Any
    app_middle: Any
    app_bias: Any
    app_leave: Any
    app_leave_bias: Any
    node_type: Any
    node_mirrored: Any
    neighbours: int
    global_node: bool
    compact: bool
    blend: float
    """Width of the compact blend, or the published `blend_std`."""
    global_squared: float


class Head(NamedTuple):
    """What is constant over the points of one head."""

    anchors: Any
    enter_bias: Any
    middle_bias: Any
    geo_bias: Any
    geo_gate: Any
    app_bias: Any
    app_gate: Any
    unstretched: Any


@compiled
def _encode(x, bands, base, out, rows):
    """[x, sin(base 2^k x), cos(...)] by doubling angles in double precision."""
    d = x.shape[1]
    for r in range(rows):
        for i in range(d):
            out[r, i] = x[r, i]
            s, c = math.sin(base * x[r, i]), math.cos(base * x[r, i])
            for k in range(bands):
                out[r, d + k * d + i] = s
                out[r, d + (bands + k) * d + i] = c
                s, c = 2.0 * s * c, 1.0 - 2.0 * s * s


@compiled
def _deform(net, head, x, begin, rows, encoded, slope, sloped, a, b, canonical):
    """Canonical place and ambient coordinates of `rows` points from `begin`."""
    _encode(x[begin : begin + rows], net.bands, math.pi, encoded, rows)
    for r in range(rows):
        a[r] = head.enter_bias
    add_product(encoded, net.enter, a, rows)
    layers = net.middle.shape[0] + 1
    for layer in range(layers):
        if sloped:
            activate_with_slope(a, slope[layer], rows)
        else:
            activate(a, rows)
        if layer == layers - 1:
            break
        for r in range(rows):
            b[r] = head.middle_bias[layer]
        add_product(a, net.middle[layer], b, rows)
        if layer + 1 == net.skip:
            add_product(encoded, net.again, b, rows)
        a, b = b, a
    for r in range(rows):
        for o in range(net.leave.shape[0]):
            value = dot(a[r], net.leave[o]) + net.leave_bias[o]
            canonical[begin + r, o] = value + x[begin + r, o] if o < 3 else value


@compiled
def _deform_back(net, g_canonical, begin, rows, encoded, slope, a, b, g_encoded, g):
    """d sdf / d x_posed from d sdf / d canonical."""
    layers = net.middle.shape[0] + 1
    for r in range(rows):
        a[r] = ZERO
        g_encoded[r] = ZERO
    add_product(g_canonical[begin : begin + rows], net.leave, a, rows)
    for layer in range(layers - 1, -1, -1):
        for r in range(rows):
            for j in range(a.shape[1]):
                a[r, j] *= slope[layer, r, j]
        if layer == 0:
            break
        if layer == net.skip:
            add_product(a, net.again_back, g_encoded, rows)
        for r in range(rows):
            b[r] = ZERO
        add_product(a, net.middle_back[layer - 1], b, rows)
        a, b = b, a
    add_product(a, net.enter_back, g_encoded, rows)
    for r in range(rows):
        for i in range(3):
            total = g_canonical[begin + r, i] + g_encoded[r, i]
            frequency = math.pi
            for k in range(net.bands):
                s, c = 3 + 3 * k + i, 3 + 3 * (net.bands + k) + i
                total += frequency * (encoded[r, c] * g_encoded[r, s] - encoded[r, s] * g_encoded[r, c])
                frequency *= 2.0
            g[begin + r, i] = total


@compiled
def _nearest(net, head, x, nodes, squared):
    """The nearest anchors, nearest first; one more than take part where the blend is compact. Returns how many."""
    wanted = net.neighbours + (1 if net.compact else 0)
    for i in range(wanted):
        squared[i] = np.inf
        nodes[i] = i
    for anchor in range(head.anchors.shape[0]):
        s = ZERO
        for i in range(3):
            s += (x[i] - head.anchors[anchor, i]) * (x[i] - head.anchors[anchor, i])
        if s < squared[wanted - 1]:
            i = wanted - 1
            while i > 0 and squared[i - 1] > s:
                squared[i], nodes[i] = squared[i - 1], nodes[i - 1]
                i -= 1
            squared[i], nodes[i] = s, anchor
    return wanted


@compiled
def _blend(net, squared, share):
    """Weights of the networks before they are normalised; returns their sum."""
    n, total = net.neighbours, 0.0
    if net.compact:
        outer = math.sqrt(squared[n] + 1e-12) + 1e-9
        for i in range(n):
            fade = 1.0 - math.sqrt(squared[i] + 1e-12) / outer
            share[i] = math.exp(-0.5 * (squared[i] - squared[0]) / net.blend**2) * fade * fade
            total += share[i]
        return total + 1e-12
    for i in range(n + (1 if net.global_node else 0)):
        s = squared[i] if i < n else net.global_squared
        share[i] = math.exp(-0.5 * net.blend**2 * s / squared[7])
        total += share[i]
    return total + 1e-8


@compiled
def _blend_back(net, head, x, nodes, squared, share, total, local, sdf, g):
    """Add to `g` how the distance changes because the weights do."""
    n = net.neighbours
    for axis in range(3):
        change = 0.0
        if net.compact:
            outer = math.sqrt(squared[n] + 1e-12)
            d_outer = (x[axis] - head.anchors[nodes[n], axis]) / outer
            first = x[axis] - head.anchors[nodes[0], axis]
            for i in range(n):
                here = x[axis] - head.anchors[nodes[i], axis]
                inner = math.sqrt(squared[i] + 1e-12)
                fade = 1.0 - inner / (outer + 1e-9)
                d_fade = -here / (inner * (outer + 1e-9)) + inner * d_outer / (outer + 1e-9) ** 2
                gauss = math.exp(-0.5 * (squared[i] - squared[0]) / net.blend**2)
                slope = gauss * fade * (2.0 * d_fade - fade * (here - first) / net.blend**2)
                change += (local[i] - sdf) * slope
        else:
            eighth = squared[7]
            d_eighth = 2.0 * (x[axis] - head.anchors[nodes[7], axis])
            for i in range(n + (1 if net.global_node else 0)):
                s, d_s = net.global_squared, 0.0
                if i < n:
                    s, d_s = squared[i], 2.0 * (x[axis] - head.anchors[nodes[i], axis])
                slope = share[i] * (-0.5 * net.blend**2) * (d_s - s * d_eighth / eighth) / eighth
                change += (local[i] - sdf) * slope
        g[axis] += change / total


@compiled
def _place(net, head, x, node, out):
    """Where the point lies for a local network."""
    d = x.shape[0]
    for i in range(d):
        out[i] = x[i]
    if node < head.anchors.shape[0]:
        for i in range(3):
            out[i] = x[i] - head.anchors[node, i]
    if head.unstretched.shape[0] > 0:
        u, x0, x1, x2 = head.unstretched[node], out[0], out[1], out[2]
        for i in range(3):
            out[i] = u[i, 0] * x0 + u[i, 1] * x1 + u[i, 2] * x2
    if net.node_mirrored[node]:
        out[0] = -out[0]


@compiled
def _place_back(net, head, node, g, weight, out):
    """Add `weight` times the gradient of a local network, turned back into canonical axes."""
    g0 = -g[0] if net.node_mirrored[node] else g[0]
    if head.unstretched.shape[0] > 0:
        u = head.unstretched[node]
        for i in range(3):
            out[i] += weight * (u[0, i] * g0 + u[1, i] * g[1] + u[2, i] * g[2])
    else:
        out[0] += weight * g0
        out[1] += weight * g[1]
        out[2] += weight * g[2]
    for i in range(3, g.shape[0]):
        out[i] += weight * g[i]


@compiled
def gate_rows(x, gates, nodes, rows):
    """Each row times the gate of its node."""
    for r in range(rows):
        gate = gates[nodes[r]]
        for j in range(x.shape[1]):
            x[r, j] *= gate[j]


@compiled
def _geometry(net, head, kind, nodes, offsets, rows, slope, sloped, a, b):
    """Last hidden layer of one local network, before its activation, left in `a`."""
    for r in range(rows):
        a[r] = head.geo_bias[nodes[r]]
    add_product(offsets, net.geo_enter[kind], a, rows)
    for layer in range(net.geo_middle.shape[1]):
        if sloped:
            activate_with_slope(a, slope[layer], rows)
        else:
            activate(a, rows)
        for r in range(rows):
            b[r] = net.geo_bias[kind, layer]
        add_product(a, net.geo_middle[kind, layer], b, rows)
        if layer == 0 and head.geo_gate.shape[0] > 0:
            gate_rows(b, head.geo_gate, nodes, rows)
        a, b = b, a
    return a, b


@compiled
def _geometry_back(net, head, kind, nodes, rows, slope, a, b, g):
    """d distance / d offset of one local network."""
    layers = net.geo_middle.shape[1]
    for r in range(rows):
        for j in range(a.shape[1]):
            a[r, j] = net.geo_leave[kind, j] * slope[layers, r, j]
    for layer in range(layers - 1, -1, -1):
        if layer == 0 and head.geo_gate.shape[0] > 0:
            gate_rows(a, head.geo_gate, nodes, rows)
        for r in range(rows):
            b[r] = ZERO
        add_product(a, net.geo_middle_back[kind, layer], b, rows)
        for r in range(rows):
            for j in range(b.shape[1]):
                b[r, j] *= slope[layer, r, j]
        a, b = b, a
    for r in range(rows):
        for i in range(net.geo_enter.shape[1]):
            g[r, i] = dot(a[r], net.geo_enter[kind, i])


@compiled
def _colour(net, head, kind, nodes, feature, offsets, rows, f, live, encoded, a, b, out):
    """Colour of one local network from what its geometry ended with."""
    bottleneck = f.shape[1]
    for r in range(rows):
        f[r] = net.feature_0_bias
        live[r, :bottleneck] = net.feature_1_bias
    add_product(feature, net.feature_0, f, rows)
    rectify(f, rows)
    add_product(f, net.feature_1, live, rows)
    if net.app_bands > 0:
        _encode(offsets, net.app_bands, 8.0 * math.pi, encoded, rows)
        for r in range(rows):
            live[r, bottleneck:] = encoded[r]
    for r in range(rows):
        a[r] = head.app_bias[nodes[r]]
    add_product(live, net.app_enter[kind], a, rows)
    for layer in range(net.app_middle.shape[1]):
        rectify(a, rows)
        for r in range(rows):
            b[r] = net.app_bias[kind, layer]
        add_product(a, net.app_middle[kind, layer], b, rows)
        if layer == 0 and head.app_gate.shape[0] > 0:
            gate_rows(b, head.app_gate, nodes, rows)
        a, b = b, a
    rectify(a, rows)
    for r in range(rows):
        for o in range(3):
            out[r, o] = dot(a[r], net.app_leave[kind, o]) + net.app_leave_bias[kind, o]


@compiled
def field(net: Net, head: Head, x: Any, distance: Any, gradient: Any, colour: Any) -> None:
    """Distance at x (points, 3), and gradient and colour where their arrays have as many rows. All float32."""
    points, d_canonical = x.shape[0], net.leave.shape[0]
    sloped, coloured = gradient.shape[0] > 0, colour.shape[0] > 0
    width, hidden = net.middle.shape[2], net.geo_middle.shape[2]
    tiles = (points + TILE - 1) // TILE
    layers = net.middle.shape[0] + 1 if sloped else 0
    kept = tiles if sloped else 1
    encoded = np.empty((kept, TILE, net.enter.shape[0]), np.float32)
    slope = np.empty((kept, layers, TILE, width), np.float32)
    a, b = np.empty((TILE, width), np.float32), np.empty((TILE, width), np.float32)
    canonical = np.empty((points, d_canonical), np.float32)
    for tile in range(tiles):
        k = tile if sloped else 0
        rows = min(TILE, points - tile * TILE)
        _deform(net, head, x, tile * TILE, rows, encoded[k], slope[k], sloped, a, b, canonical)

    n = net.neighbours + (1 if net.global_node else 0)
    nodes, squared = np.empty((points, n + 1), np.int64), np.empty((points, n + 1), np.float32)
    share, total = np.empty((points, n), np.float32), np.empty(points, np.float32)
    types = net.geo_enter.shape[0]
    ends = np.zeros(types + 1, np.int64)
    for p in range(points):
        _nearest(net, head, canonical[p], nodes[p], squared[p])
        total[p] = _blend(net, squared[p], share[p])
        if net.global_node:
            nodes[p, net.neighbours] = head.anchors.shape[0]
        for i in range(n):
            ends[net.node_type[nodes[p, i]] + 1] += 1
    for t in range(types):
        ends[t + 1] += ends[t]
    order, fill = np.empty(points * n, np.int64), ends.copy()
    for p in range(points):
        for i in range(n):
            t = net.node_type[nodes[p, i]]
            order[fill[t]] = p * n + i
            fill[t] += 1

    local = np.empty((points, n), np.float32)
    g_canonical = np.zeros((points if sloped else 0, d_canonical), np.float32)
    u, v = np.empty((TILE, hidden), np.float32), np.empty((TILE, hidden), np.float32)
    slope_geo = np.empty((net.geo_middle.shape[1] + 1 if sloped else 0, TILE, hidden), np.float32)
    offsets, node_of = np.empty((TILE, d_canonical), np.float32), np.empty(TILE, np.int64)
    g_offset = np.empty((TILE, d_canonical), np.float32)
    bottleneck, h_app = net.feature_1.shape[0], net.app_middle.shape[2]
    f = np.empty((TILE, bottleneck), np.float32)
    live = np.empty((TILE, net.app_enter.shape[1]), np.float32)
    banded = np.empty((TILE, net.app_enter.shape[1] - bottleneck), np.float32)
    s, q = np.empty((TILE, h_app), np.float32), np.empty((TILE, h_app), np.float32)
    c_local = np.empty((TILE, 3), np.float32)
    colour[:] = ZERO
    for t in range(types):
        for begin in range(ends[t], ends[t + 1], TILE):
            rows = min(TILE, ends[t + 1] - begin)
            for r in range(rows):
                p, i = order[begin + r] // n, order[begin + r] % n
                node_of[r] = nodes[p, i]
                _place(net, head, canonical[p], node_of[r], offsets[r])
            last, other = _geometry(net, head, t, node_of, offsets, rows, slope_geo, sloped, u, v)
            if coloured:
                _colour(net, head, t, node_of, last, offsets, rows, f, live, banded, s, q, c_local)
                for r in range(rows):
                    p, i = order[begin + r] // n, order[begin + r] % n
                    for o in range(3):
                        colour[p, o] += share[p, i] / total[p] * c_local[r, o]
            if sloped:
                activate_with_slope(last, slope_geo[net.geo_middle.shape[1]], rows)
            else:
                activate(last, rows)
            for r in range(rows):
                p, i = order[begin + r] // n, order[begin + r] % n
                local[p, i] = dot(last[r], net.geo_leave[t]) + net.geo_leave_bias[t]
            if sloped:
                _geometry_back(net, head, t, node_of, rows, slope_geo, last, other, g_offset)
                for r in range(rows):
                    p, i = order[begin + r] // n, order[begin + r] % n
                    _place_back(net, head, node_of[r], g_offset[r], share[p, i] / total[p], g_canonical[p])

    for p in range(points):
        value = ZERO
        for i in range(n):
            value += local[p, i] * share[p, i] / total[p]
        distance[p] = value
        if sloped:
            _blend_back(
                net, head, canonical[p], nodes[p], squared[p], share[p], total[p], local[p], value, g_canonical[p]
            )
    if sloped:
        g_encoded = np.empty((TILE, net.enter.shape[0]), np.float32)
        for tile in range(tiles):
            rows = min(TILE, points - tile * TILE)
            _deform_back(net, g_canonical, tile * TILE, rows, encoded[tile], slope[tile], a, b, g_encoded, gradient)
