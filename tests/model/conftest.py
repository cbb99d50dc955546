"""A small network that does something, and pictures for it."""

import pytest
import torch

from diffmf_cli.model.network import Config, DiffMF


@pytest.fixture(scope="session")
def network():
    """Random weights with the blocks' gains at 1 and a wide output: nothing that matters stays near zero."""
    torch.manual_seed(0)
    model = DiffMF(Config(width=16, extraction=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gain_" in name:
                parameter.fill_(1.0)
            elif "guide" in name:
                parameter.normal_(0, 0.3)
        model.decoder.out.weight *= 20
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@pytest.fixture
def pictures():
    """Random pictures `(batch, 1, h, w)` with structure at every scale, IR and VIS."""

    def make(h, w, batch=1, seed=0):
        g = torch.Generator().manual_seed(seed)

        def one():
            total = torch.zeros(batch, 1, h, w)
            for cells in (2, 5, 17):
                coarse = torch.rand(batch, 1, cells, cells, generator=g)
                total += torch.nn.functional.interpolate(coarse, (h, w), mode="bilinear")
            return (total / 3 + 0.1 * torch.randn(total.shape, generator=g)).clamp(0, 1)

        return one(), one()

    return make
