"""Tables on terminals of any width."""

import io

import pytest
from rich.console import Console

from diffmf_cli.metrics.catalogue import CONVENTIONS
from diffmf_cli.metrics.evaluation import Score
from diffmf_cli.metrics.table import Table
from diffmf_cli.metrics.terminal import per_image_to_terminal, to_terminal

METHODS = [f"method{i}" for i in range(6)]
KEYS = ("EN", "SSIM", "VIF", "Qabf", "MI", "CC")


def lines(renderable, width):
    """What a terminal of that width shows."""
    text = io.StringIO()
    Console(file=text, width=width, highlight=False).print(renderable)
    return [line.rstrip() for line in text.getvalue().splitlines()]


@pytest.fixture
def table():
    scores = [
        Score(method, f"scene{scene}", {key: 0.1234 + scene + index for key in KEYS})
        for index, method in enumerate(METHODS)
        for scene in range(3)
    ]
    return Table(METHODS, KEYS, CONVENTIONS["cddfuse"], scores, balance=False)


@pytest.mark.parametrize("width", [160, 100, 70, 44])
def test_no_cell_is_cut_or_broken_whatever_the_width(table, width):
    shown = lines(to_terminal(table), width)
    assert max(map(len, shown)) <= width
    headings = [line.split() for line in shown if "method" in line]
    assert [method for heading in headings for method in heading] == METHODS
    assert sum(line.startswith("SSIM[sum,u7,L=2] ↑ ") for line in shown) == len(headings)
    assert sum(line.count("± 0.816") for line in shown) == len(METHODS) * len(KEYS)
    flat = any("1.123 ± 0.816" in line for line in shown)
    assert (flat, len(headings)) == {160: (True, 1), 100: (False, 1), 70: (False, 2), 44: (False, 3)}[width]


def test_columns_of_pictures_are_divided_among_several_tables(table):
    shown = lines(per_image_to_terminal(table), 50)
    assert max(map(len, shown)) <= 50
    headings = [line.split()[2:] for line in shown if line.startswith("picture")]
    assert headings == [["EN", "SSIM", "VIF"], ["Qabf", "MI", "CC"]]
    assert sum(line.startswith("scene1   method5") for line in shown) == 2
