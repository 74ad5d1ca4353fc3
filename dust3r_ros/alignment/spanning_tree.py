"""Which pairs hold the images together: the maximum spanning tree over pair scores.

Each ordered pair is scored by mean confidence times mean confidence (DUSt3R, section 3.4); the tree keeps the best pair of each link.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from dust3r_ros.estimators import PairPrediction


@dataclass(frozen=True)
class Branch:
    """One component of the graph: its root and, parents first, the pairs that place the other nodes."""

    root: int
    links: tuple[tuple[int, int, int], ...]  # (placed node, new node, index of the prediction that joins them)

    @property
    def nodes(self) -> tuple[int, ...]:
        return (self.root, *(new for _, new, _ in self.links))


def score(prediction: PairPrediction) -> float:
    """Mean confidence of the one view times that of the other; 1 when nothing is known."""
    return float(prediction.confidence_i.mean() * prediction.confidence_j.mean())


def spanning_forest(predictions: Sequence[PairPrediction], pair_scores: Sequence[float] | None = None) -> list[Branch]:
    """The maximum spanning tree of each component, the largest first, its root the first image of its best pair.

    `pair_scores`: `score` of each prediction, where they are known already.
    """
    if pair_scores is None:
        pair_scores = [score(prediction) for prediction in predictions]
    nodes = sorted({node for p in predictions for node in (p.i, p.j)})
    position = {node: at for at, node in enumerate(nodes)}
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for index, prediction in enumerate(predictions):
        link = (min(prediction.i, prediction.j), max(prediction.i, prediction.j))
        best[link] = max(best.get(link, (0.0, index)), (pair_scores[index], index))
    scores, ends = np.array([s for s, _ in best.values()]), np.array([(position[a], position[b]) for a, b in best]).reshape(-1, 2)
    # The sparse minimum spanning tree takes positive weights: the best link has the least.
    graph = coo_matrix((scores.max(initial=0.0) + 1.0 - scores, (ends[:, 0], ends[:, 1])), shape=(len(nodes), len(nodes)))
    tree = minimum_spanning_tree(graph.tocsr())

    branches: list[Branch] = []
    seen: set[int] = set()
    for _, index in sorted(best.values(), key=lambda entry: (-entry[0], entry[1])):
        root = predictions[index].i
        if root in seen:
            continue
        order, parents = breadth_first_order(tree, position[root], directed=False)
        steps = [(nodes[parents[at]], nodes[at]) for at in order[1:]]
        branches.append(Branch(root, tuple((a, b, best[min(a, b), max(a, b)][1]) for a, b in steps)))
        seen.update(branches[-1].nodes)
    return sorted(branches, key=lambda branch: -len(branch.nodes))
