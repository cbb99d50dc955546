"""A metric of two sources: its value, and what each source alone contributes."""

from typing import NamedTuple

import torch
from torch import Tensor


class BySource(NamedTuple):
    """Values of one metric, `(B,)` float64 each.

    A sum over the sources cannot tell a balanced picture from a copy of one input: `worst` can.
    """

    value: Tensor
    """The metric as the field reports it."""
    ir: Tensor
    """The part of the infrared source alone."""
    vis: Tensor
    """The part of the visible source alone."""

    @property
    def worst(self) -> Tensor:
        """The smaller of both parts, `(B,)`."""
        return torch.minimum(self.ir, self.vis)


def combine(ir: Tensor, vis: Tensor, combination: str) -> BySource:
    """Join the parts of both sources by "sum" or "mean"."""
    total = ir + vis
    return BySource(total if combination == "sum" else total / 2, ir, vis)
