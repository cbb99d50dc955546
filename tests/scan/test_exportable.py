"""The recurrence for exported programs, called as it is; in a file: tests/cli/test_export.py."""

import pytest

from diffmf_cli.scan import exportable, reference
from diffmf_cli.scan.recurrence import scan_with


@pytest.mark.parametrize("d_state", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (1, 1, 6, 4), (1, 6, 1, 4), (2, 5, 7, 3)], ids=str)
def test_agrees_with_the_reference(scans, shape, d_state):
    arguments = scans.make(shape, d_state)
    expected = reference.selective_scan_2d(**arguments)
    got = scans.forward(lambda **a: scan_with(exportable.recurrence, **a), arguments)
    assert scans.error(got, expected) < 1e-12


@pytest.mark.parametrize("delta", [-1e4, -60.0, 30.0, 1e4])
def test_extreme_steps(scans, delta):
    arguments = scans.make((2, 5, 6, 3))
    arguments["delta"] = arguments["delta"] + delta
    expected = reference.selective_scan_2d(**arguments)
    got = scans.forward(
        lambda **a: scan_with(exportable.recurrence, **a), {k: t.float() for k, t in arguments.items()}
    )
    assert scans.error(got, expected) < 1e-5
