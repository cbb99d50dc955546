"""Scan arguments, and errors relative to the largest value."""

import pytest
import torch

ARGUMENTS = ("x", "delta", "A", "B", "C", "D", "delta_bias")


class Scans:
    """Makes arguments of a scan and runs a backend on them, forward and backward."""

    arguments = ARGUMENTS

    @staticmethod
    def make(shape, d_state=1, seed=0, dtype=torch.float64):
        """Float64 arguments as a trained network has them: `shape` is (B, H, W, d)."""
        g = torch.Generator().manual_seed(seed)
        batch, h, w, d = shape

        def normal(*size):
            return torch.randn(*size, generator=g, dtype=torch.float64)

        made = {
            "x": normal(batch, h, w, d),
            "delta": normal(batch, h, w, d),
            "A": -torch.arange(1, d_state + 1) * torch.exp(0.3 * normal(d, d_state)),
            "B": normal(batch, h, w, d_state),
            "C": normal(batch, h, w, d_state),
            "D": normal(d),
            "delta_bias": normal(d) - 3,
        }
        return {name: t.to(dtype) for name, t in made.items()}

    @staticmethod
    def forward(run, arguments):
        """The result without gradients, as in inference."""
        with torch.no_grad():
            return run(**arguments)

    @staticmethod
    def gradients(run, arguments, weight):
        """Result and the gradient of every argument of `sum(weight * result)`, as a dict."""
        leaves = {name: t.detach().clone().requires_grad_() for name, t in arguments.items()}
        y = run(**leaves)
        grads = torch.autograd.grad((weight.to(y) * y).sum(), list(leaves.values()))
        return {"y": y.detach(), **dict(zip(leaves, grads, strict=True))}

    @staticmethod
    def error(got, expected):
        """Largest difference over the largest expected value."""
        assert torch.isfinite(got).all()
        assert got.shape == expected.shape
        got, expected = got.double().cpu(), expected.double().cpu()
        return ((got - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()


@pytest.fixture
def scans():
    return Scans
