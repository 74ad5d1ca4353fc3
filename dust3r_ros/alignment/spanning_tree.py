"""Which pairs hold the images together: the maximum spanning tree over pair scores.

Each ordered pair is scored by mean confidence times mean confidence (DUSt3R, section 3.4); the tree keeps the best pair of each link.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from dust3r_ros.estimators import PairPrediction

SCORED = 4000  # pixels of a view that its mean confidence is taken from


@dataclass(frozen=True)
class Branch:
    """One component of the graph: its root and, parents first, the pairs that place the other nodes."""

    root: int
    links: tuple[tuple[int, int, int], ...]  # (placed node, new node, index of the prediction that joins them)

    @property
    def nodes(self) -> tuple[int, ...]:
        return (self.root, *(new for _, new, _ in self.links))

    def numbered(self, numbers: Sequence[int]) -> Branch:
        """The same with other numbers for the predictions."""
        return replace(self, links=tuple((parent, new, numbers[index]) for parent, new, index in self.links))


def score(prediction: PairPrediction) -> float:
    """Mean confidence of the one view times that of the other, on a grid of about SCORED pixels; 1 when nothing is known."""
    product = 1.0
    for confidence in (prediction.confidence_i, prediction.confidence_j):
        step = max(1, int((confidence.numel() / SCORED) ** 0.5))
        product *= float(confidence[step // 2 :: step, step // 2 :: step].mean(dtype=torch.float32))
    return product


def spanning_forest(pairs: Sequence[tuple[int, int]], scores: Sequence[float]) -> list[Branch]:
    """The maximum spanning tree of each component of ordered pairs, the largest first, its root the first image of its best pair."""
    nodes = sorted({node for pair in pairs for node in pair})
    position = {node: at for at, node in enumerate(nodes)}
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for index, (i, j) in enumerate(pairs):
        link = (min(i, j), max(i, j))
        best[link] = max(best.get(link, (0.0, index)), (scores[index], index))
    values, ends = np.array([s for s, _ in best.values()]), np.array([(position[a], position[b]) for a, b in best]).reshape(-1, 2)
    # The sparse minimum spanning tree takes positive weights: the best link has the least.
    graph = coo_matrix((values.max(initial=0.0) + 1.0 - values, (ends[:, 0], ends[:, 1])), shape=(len(nodes), len(nodes)))
    tree = minimum_spanning_tree(graph.tocsr())

    branches: list[Branch] = []
    seen: set[int] = set()
    for _, index in sorted(best.values(), key=lambda entry: (-entry[0], entry[1])):
        root = pairs[index][0]
        if root in seen:
            continue
        order, parents = breadth_first_order(tree, position[root], directed=False)
        steps = [(nodes[parents[at]], nodes[at]) for at in order[1:]]
        branches.append(Branch(root, tuple((a, b, best[min(a, b), max(a, b)][1]) for a, b in steps)))
        seen.update(branches[-1].nodes)
    return sorted(branches, key=lambda branch: -len(branch.nodes))
