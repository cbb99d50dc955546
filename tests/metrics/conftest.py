"""The triples and toolkit values of the shared reference set, where it is at hand."""

import json
from pathlib import Path

import cv2
import pytest
import torch

REFERENCE = Path(__file__).parents[3] / "shared/data/metrics"


class ReferenceSet:
    """24 triples (infrared, visible, fused) with the values that public toolkits give them."""

    def __init__(self, folder):
        self.folder = folder
        content = json.loads((folder / "reference.json").read_text())
        self.images = {image["id"]: image for image in content["images"]}
        self._values = content["values"]

    def triple(self, name):
        """`(ir, vis, fused)`, `(1, 1, H, W)` uint8 each."""
        image = self.images[name]
        return tuple(
            torch.from_numpy(cv2.imread(str(self.folder / "images" / image[role]["file"]), -1))[None, None]
            for role in ("ir", "vi", "fused")
        )

    def values(self, toolkit, key):
        """Triple name to the toolkit's value, NaN and Inf included, errors left out."""
        found = {}
        for name, by_toolkit in self._values.items():
            value = by_toolkit.get(toolkit, {}).get(key)
            if value is not None and not str(value).startswith("ERROR"):
                found[name] = float(value)
        return found


@pytest.fixture(scope="session")
def reference():
    if not (REFERENCE / "reference.json").exists():
        pytest.skip(f"no reference values in {REFERENCE}")
    return ReferenceSet(REFERENCE)


@pytest.fixture
def triple():
    """A random, correlated triple of odd size, `(2, 1, 61, 83)` uint8."""
    generator = torch.Generator().manual_seed(7)
    base = torch.nn.functional.interpolate(
        torch.rand(2, 1, 9, 11, generator=generator) * 200, size=(61, 83), mode="bicubic"
    )
    ir = base + 20 * torch.randn(base.shape, generator=generator)
    vis = 128 - base / 2 + 20 * torch.randn(base.shape, generator=generator)
    return tuple(p.round().clamp(0, 255).to(torch.uint8) for p in (ir, vis, torch.maximum(ir, vis)))
