"""How is a closed mesh made of fewer triangles without being torn or pinched anywhere?

Edges shrink to points, the cheapest by quadric error first (Garland and Heckbert 1997), and only where the mesh stays
a closed surface of the same shape in the large: where the two ends share no neighbours but those opposite the edge (the
link condition; Dey, Edelsbrunner and others 1999), and no triangle beside it turns over. Compiled.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from reconstruction.resample import in_threads

Places = npt.NDArray[np.float64]
Corners = npt.NDArray[np.int32]
_CHEAPEST = 0.35  # of the edges are tried in each round, by their cost as it was at the round's beginning
_HARDLY_ANY = 0.01  # of the triangles gone in a round: what is left cannot be thinned
_TURNED = 0.3  # cosine of the angle by which a triangle may turn
_SLIVER = 0.05  # of the area of an even triangle with the same sides: thinner ones are not made
_PULLED = 1e-3  # how much an edge is held to its middle, so that a plane's own edges have one best place


def thinned(vertices: Places, triangles: Corners, wanted: int) -> tuple[Places, Corners]:
    """Return a closed mesh of about ``wanted`` triangles, or as few as keep its shape; vertices not used are left out.

    The mesh given must be closed, each edge walked once either way; coordinates in mm.
    """
    places, corners = vertices.astype(np.float64), np.ascontiguousarray(triangles, dtype=np.int32)
    quadrics = np.zeros((len(places), 10))
    _gather(places, corners, quadrics)
    while len(corners) > wanted:
        before = len(corners)
        corners = _round(places, quadrics, corners, wanted)
        if before - len(corners) < _HARDLY_ANY * before:
            break
    used, numbers = np.unique(corners, return_inverse=True)
    return places[used], numbers.reshape(-1, 3).astype(np.int32)


def _round(places: Places, quadrics: Places, corners: Corners, wanted: int) -> Corners:
    """Shrink edges apart from each other, in ``places`` and ``quadrics`` themselves; returns the triangles left."""
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    edges = edges[edges[:, 0] < edges[:, 1]]
    best = np.empty((len(edges), 4))
    in_threads(lambda span: _price(places, quadrics, edges, best, span), len(edges))
    order = np.argsort(best[:, 3], kind="stable")[: max(1, int(_CHEAPEST * len(edges)))]
    flat = corners.ravel()
    rings = np.argsort(flat, kind="stable") // 3
    first = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=len(places)))])
    into = np.arange(len(places), dtype=np.int32)
    _shrink(
        (places, quadrics, corners), (first, rings), (edges[order], best[order]), into, (len(corners) - wanted) // 2
    )
    moved: Corners = into[corners]
    whole = (moved[:, 0] != moved[:, 1]) & (moved[:, 1] != moved[:, 2]) & (moved[:, 0] != moved[:, 2])
    left: Corners = moved[whole]
    return left


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _gather(places: Places, corners: Corners, quadrics: Places) -> None:
    """Add up, for each vertex, the planes of its triangles, weighted by their areas: xx xy xz xw yy yz yw zz zw ww."""
    for triangle in range(len(corners)):
        a, b, c = corners[triangle, 0], corners[triangle, 1], corners[triangle, 2]
        normal = _cross(_from(places[a], places[b]), _from(places[a], places[c]))
        doubled = np.sqrt(_dot(normal, normal))
        if doubled <= 0.0:
            continue
        x, y, z = normal[0] / doubled, normal[1] / doubled, normal[2] / doubled
        w = -_dot((x, y, z), places[a])
        plane = (x * x, x * y, x * z, x * w, y * y, y * z, y * w, z * z, z * w, w * w)
        for vertex in (a, b, c):
            for n, part in enumerate(plane):
                quadrics[vertex, n] += doubled * part


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _price(places: Places, quadrics: Places, edges: Corners, best: Places, span: tuple[int, int]) -> None:
    """Find for each edge the place where shrinking it costs least, and that cost (area by distance²: mm⁴)."""
    q, middle = np.empty(10), np.empty(3)
    for n in range(span[0], span[1]):
        a, b = edges[n, 0], edges[n, 1]
        for part in range(10):
            q[part] = quadrics[a, part] + quadrics[b, part]
        for axis in range(3):
            middle[axis] = (places[a, axis] + places[b, axis]) / 2.0
        along = _from(places[a], places[b])
        square = _dot(along, along)
        pull = _PULLED * (q[0] + q[4] + q[7]) + 1e-12
        x, y, z = _lowest(q, middle, pull)
        away = _from(middle, (x, y, z))
        off = _dot(away, away)
        if off > square:
            x, y, z, off = middle[0], middle[1], middle[2], 0.0
        best[n, 0], best[n, 1], best[n, 2] = x, y, z
        best[n, 3] = max(_error(q, x, y, z), 0.0) + pull * (off + 0.1 * square)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _lowest(q: Places, middle: Places, pull: float) -> Any:
    """Solve for the place of the least error, by Cramer's rule; the pull to the middle keeps it soluble."""
    a, b, c, d, e, f = q[0] + pull, q[1], q[2], q[4] + pull, q[5], q[7] + pull
    r, s, t = pull * middle[0] - q[3], pull * middle[1] - q[6], pull * middle[2] - q[8]
    first, second, third = d * f - e * e, c * e - b * f, b * e - c * d
    whole = a * first + b * second + c * third
    if not abs(whole) > 1e-30:
        return middle[0], middle[1], middle[2]
    return (
        (r * first + s * second + t * third) / whole,
        (r * second + s * (a * f - c * c) + t * (b * c - a * e)) / whole,
        (r * third + s * (b * c - a * e) + t * (a * d - b * b)) / whole,
    )


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _error(q: Places, x: float, y: float, z: float) -> Any:
    return (
        q[0] * x * x
        + q[4] * y * y
        + q[7] * z * z
        + q[9]
        + 2.0 * (q[1] * x * y + q[2] * x * z + q[5] * y * z + q[3] * x + q[6] * y + q[8] * z)
    )


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _shrink(mesh: Any, rings: Any, tried: Any, into: Corners, most: int) -> None:
    """Shrink edges in order; what touches one that was shrunk stays as it is until the next round."""
    places, quadrics, corners = mesh
    first, around = rings
    edges, best = tried
    still = np.zeros(len(places), dtype=np.bool_)
    seen = np.full(len(places), -1, dtype=np.int64)
    uses = first[1:] - first[:-1]
    for n in range(len(edges)):
        a, b = edges[n, 0], edges[n, 1]
        if most <= 0:
            break
        if still[a] or still[b]:
            continue
        near_a, near_b = around[first[a] : first[a + 1]], around[first[b] : first[b + 1]]
        if not _may_shrink((a, b, n), (near_a, near_b), corners, seen, uses):
            continue
        place = best[n, :3]
        if _turns(places, corners, near_a, (a, b), place) or _turns(places, corners, near_b, (b, a), place):
            continue
        into[b] = a
        places[a] = place
        quadrics[a] += quadrics[b]
        _settle((a, b), (near_a, near_b), corners, still, uses)
        most -= 1


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _may_shrink(edge: Any, near: Any, corners: Corners, seen: Any, uses: Any) -> bool:
    """Say whether the ends share just the two neighbours opposite, each of which keeps three triangles or more."""
    a, b, n = edge
    for triangle in near[0]:
        for vertex in corners[triangle]:
            seen[vertex] = n
    seen[a] = seen[b] = -1
    shared = 0
    for triangle in near[1]:
        for vertex in corners[triangle]:
            if seen[vertex] == n:
                seen[vertex] = -1
                shared += 1
                if uses[vertex] <= 3:
                    return False
    return shared == 2


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _turns(places: Places, corners: Corners, near: Any, ends: tuple[int, int], place: Places) -> bool:
    """Say whether a triangle round an end would turn over, or become a sliver, with that end moved to a place."""
    end, other = ends
    for triangle in near:
        a, b, c = corners[triangle, 0], corners[triangle, 1], corners[triangle, 2]
        if other in (a, b, c):
            continue
        while a != end:
            a, b, c = b, c, a
        across, from_old, from_new = _from(places[b], places[c]), _from(places[b], places[a]), _from(places[b], place)
        old, new = _cross(across, from_old), _cross(across, from_new)
        before, after = _dot(old, old), _dot(new, new)
        if _dot(old, new) < _TURNED * np.sqrt(before * after) or after <= 0.0:
            return True
        third = _from(places[c], place)
        sides = _dot(across, across) + _dot(from_new, from_new) + _dot(third, third)
        if after < min((_SLIVER * sides) ** 2 / 12.0, before / 4.0):
            return True
    return False


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _from(a: Places, b: Places) -> Any:
    return b[0] - a[0], b[1] - a[1], b[2] - a[2]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _cross(a: Any, b: Any) -> Any:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _dot(a: Any, b: Any) -> Any:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _settle(edge: tuple[int, int], near: Any, corners: Corners, still: Any, uses: Any) -> None:
    """Note which vertices are done with for this round, and how many triangles each has now."""
    a, b = edge
    for triangle in near[0]:
        lost = b in (corners[triangle, 0], corners[triangle, 1], corners[triangle, 2])
        for vertex in corners[triangle]:
            still[vertex] = True
            uses[vertex] -= lost
    for triangle in near[1]:
        for vertex in corners[triangle]:
            still[vertex] = True
    uses[a] += uses[b]
