"""A module that may have graphs, which do not outlive a move of its weights."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from sentcore.pipeline.graphs.runner import GraphRunner


class HoldsGraphs(nn.Module):
    """Base of what computes by graphs where it was asked to.

    Attributes:
        graphs: None where all is computed as always.
    """

    graphs: GraphRunner | None = None

    def use_graphs(self, wanted: bool) -> None:
        """Graphs from now on, or none."""
        self.graphs = GraphRunner() if wanted else None

    def _apply(self, fn: Callable, recurse: bool = True) -> HoldsGraphs:
        """`to`, `half` and their kin: graphs of the old weights would keep these where they were."""
        super()._apply(fn, recurse)
        if self.graphs is not None:
            self.graphs.drop_outdated()
        return self
