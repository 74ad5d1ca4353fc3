"""A graph of thousands of keyframes, solved on a few hundred of them: what a loop corrects is spread over long stretches of the way.

The way is cut into stretches of equally many keyframes. Each moves with its first keyframe, the anchor, as far as the links know; these are
carried over to the anchors. The keyframes between two anchors begin between the anchors' moves and settle on their own links, so that
nothing tears; at last the newest are solved with their loops. Loops make the graph of all keyframes dense, and solving that grows with its
cube.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.lengths import Length, length_factors
from dust3r_ros.alignment.link import Link
from dust3r_ros.alignment.pose_graph import Graph, movable, solve_links, solve_pose_graph
from dust3r_ros.alignment.sim3 import Array, Sim3
from dust3r_ros.alignment.similarity_table import SimilarityTable

ANCHORS = 300  # at most, but for breaks of the way
NEWEST = 200  # keyframes that are solved one by one afterwards

Rows = NDArray[np.int64]


def solve_coarsely(
    nodes: SimilarityTable, links: Sequence[Link], lengths: Sequence[Length] = (), anchors: int = ANCHORS, newest: int = NEWEST
) -> Graph:
    """As `solve_pose_graph`, which it is for a graph of no more than twice as many keyframes as `anchors`."""
    order = nodes.indices
    if len(order) <= 2 * anchors:
        return solve_pose_graph(nodes, links, lengths)
    links = [link for link in links if link.i in nodes and link.j in nodes]
    ends = np.searchsorted(order, np.array([(link.i, link.j) for link in links]))
    loop = np.array([link.loop for link in links])
    each = -(-len(order) // anchors)
    is_anchor = np.arange(len(order)) % each == 0
    follows = np.zeros(len(order), bool)  # on from the keyframe before it; where the way breaks off another stretch begins
    follows[ends[~loop & (ends[:, 1] == ends[:, 0] + 1), 1]] = True
    is_anchor |= ~follows
    anchor, stretch = np.flatnonzero(is_anchor), np.cumsum(is_anchor) - 1
    before = nodes.at(order)
    local = before[anchor[stretch]].inverse() @ before  # each keyframe in its anchor's frame
    between = stretch[ends[:, 0]] != stretch[ends[:, 1]]
    relative, information = Sim3.stack([link.relative for link in links]), np.stack([link.information for link in links])
    measured = _between_anchors(lengths, order, before, anchor, stretch, follows)
    state, wrong = _solve_anchors(before[anchor], local, stretch, ends, relative, information, loop, between, each, measured)
    after = _carried(before, state, anchor, stretch, local, follows)
    way = np.flatnonzero(~loop)
    free = np.broadcast_to(~is_anchor[:, None], (len(order), 7))
    after, _ = solve_links(after, free, ends[way], relative[way], information[way], loop[way])
    solved = nodes.copy()
    solved.put(order, after)
    rejected = {(links[k].i, links[k].j) for k in np.flatnonzero(between)[wrong]}
    fine = solve_pose_graph(solved, [link for link in links if (link.i, link.j) not in rejected], lengths, newest)
    return Graph(fine.nodes, order, (*sorted(rejected), *fine.rejected))


def _solve_anchors(
    state: Sim3,
    local: Sim3,
    stretch: Rows,
    ends: Rows,
    relative: Sim3,
    information: Array,
    loop: NDArray[np.bool_],
    between: NDArray[np.bool_],
    each: int,
    lengths: Sequence[Length],
) -> tuple[Sim3, NDArray[np.bool_]]:
    """The anchors where the links `between` stretches agree best; which of these are wrong."""
    ends, loop = ends[between], loop[between]
    first, second = local[ends[:, 0]], local[ends[:, 1]]
    back = second.inverse().adjoint()  # an increment at the second anchor, seen at the link's second keyframe
    known = back.transpose(0, 2, 1) @ information[between] @ back
    known[~loop] /= each  # a stretch gives way at all of its links, here only at its end
    joined = stretch[ends]
    carried = first @ relative[np.flatnonzero(between)] @ second.inverse()
    measured = length_factors(lengths, {n: n for n in range(len(state))}, state)
    return solve_links(state, movable(joined, len(state), measured), joined, carried, known, loop, measured)


def _between_anchors(
    lengths: Sequence[Length], order: Rows, before: Sim3, anchor: Rows, stretch: Rows, follows: NDArray[np.bool_]
) -> list[Length]:
    """Ways from each anchor to the next, by row: as they lie, times what the lengths in that stretch say they should be."""
    at = {int(n): row for row, n in enumerate(order)}
    ratios: dict[int, list[float]] = {}
    for one in lengths:
        if one.i in at and one.j in at:
            i, j = at[one.i], at[one.j]
            apart = float(np.linalg.norm(before.translation[j] - before.translation[i]))
            if apart > 0 and stretch[j] <= stretch[i] + 1:
                ratios.setdefault(int(stretch[i]), []).append(one.length / apart)
    found = []
    for s in range(len(anchor) - 1):
        apart = float(np.linalg.norm(before.translation[anchor[s + 1]] - before.translation[anchor[s]]))
        if s in ratios and follows[anchor[s + 1]] and apart > 0:
            found.append(Length(s, s + 1, apart * float(np.median(ratios[s]))))
    return found


def _carried(before: Sim3, state: Sim3, anchor: Rows, stretch: Rows, local: Sim3, follows: NDArray[np.bool_]) -> Sim3:
    """All keyframes, each between where its anchor and the next one would take it."""
    next_one = np.minimum(stretch + 1, len(anchor) - 1)
    goes_on = follows[anchor[next_one]] & (next_one > stretch)
    length = np.where(goes_on, anchor[next_one] - anchor[stretch], 1)
    share: Array = np.where(goes_on, (np.arange(len(stretch)) - anchor[stretch]) / length, 0.0)
    # What the next anchor's move is beyond this one's, in this one's own frame: small, and near by.
    old, new = before[anchor], state
    further = new[stretch].inverse() @ new[next_one] @ old[next_one].inverse() @ old[stretch]
    return new[stretch].moved(share[:, None] * further.difference()) @ local
