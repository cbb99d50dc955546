"""Figures, ranks and number formats of tables."""

import math

import pytest

from diffmf_cli.metrics.catalogue import CONVENTIONS
from diffmf_cli.metrics.evaluation import Score
from diffmf_cli.metrics.table import Figure, Table, compare, decimals, format_figure, to_latex, to_markdown


def table(**values):
    """A table of EN and MSE from `method=[(en, mse), ...]`."""
    scores = [
        Score(method, str(scene), {"EN": en, "MSE": mse})
        for method, rows in values.items()
        for scene, (en, mse) in enumerate(rows)
    ]
    return Table(list(values), ("EN", "MSE"), CONVENTIONS["cddfuse"], scores, balance=True)


def test_undefined_values_are_left_out_of_means_and_counted():
    assert Figure.of([1, math.nan, 3, math.inf]) == Figure(2, 1, 2)
    assert format_figure(Figure(2, 1, 2), 4) == ("2.000", "± 1.000 (n=2)")
    assert format_figure(Figure.of([math.nan]), 1) == ("n/a", "")


def test_ranks_follow_the_direction_and_share_ties():
    ranked = table(a=[(5, 10)], b=[(6, 10)], c=[(7, 30)])
    assert ranked.ranks == {"a": (3 + 1.5) / 2, "b": (2 + 1.5) / 2, "c": (1 + 3) / 2}
    assert [ranked.place(m, "EN") for m in "abc"] == [0, 2, 1]
    assert [ranked.place(m, "MSE") for m in "abc"] == [1, 1, 2]


def test_the_nearest_to_zero_is_best_where_neither_direction_is():
    values = {"a": -0.3, "b": 0.1, "c": 0.2}
    scores = [
        Score(method, str(scene), {"QSF": value}) for method, value in values.items() for scene in range(9)
    ]
    ranked = Table(list(values), ("QSF",), CONVENTIONS["cddfuse"], scores, balance=False)
    assert ranked.ranks == {"a": 3, "b": 1, "c": 2}
    assert ranked.summary()["higher_is_better"] == {"QSF": None}
    assert "| QSF →0 |" in to_markdown(ranked)
    assert r"QSF $\rightarrow$0" in to_latex(ranked)
    pytest.importorskip("scipy")
    (row,) = compare(ranked, "a", "b")
    assert (row.difference, row.verdict()) == (pytest.approx(0.2), "worse")
    (row,) = compare(ranked, "b", "c")
    assert (row.difference, row.verdict()) == (pytest.approx(-0.1), "better")


def test_one_method_is_neither_best_nor_ranked():
    single = table(a=[(5, 10)])
    assert single.place("a", "EN") == 0
    assert "**" not in to_markdown(single)
    assert "mean rank" not in to_markdown(single)


@pytest.mark.parametrize(
    ("value", "digits"), [(7.1123, 3), (45.03, 2), (0.71, 4), (1680.4, 0), (0.0001, 4), (0, 3)]
)
def test_four_significant_digits(value, digits):
    assert decimals(value) == digits


def test_wilcoxon_with_holm_on_common_scenes():
    stats = pytest.importorskip("scipy.stats")
    rows = [(5 + i / 10, 10 + i * (-1) ** i) for i in range(12)]
    other = [(4.9 + i / 9, 10) for i in range(11)]
    found = {row.column: row for row in compare(table(a=rows, b=other), "a", "b")}
    differences = [a[0] - b[0] for a, b in zip(rows, other, strict=False)]
    assert found["EN"].n == 11
    assert found["EN"].p == pytest.approx(stats.wilcoxon(differences).pvalue)
    smaller, larger = sorted(found.values(), key=lambda row: row.p)
    assert smaller.adjusted == pytest.approx(min(1, 2 * smaller.p))
    assert larger.adjusted == pytest.approx(max(larger.p, smaller.adjusted))


def test_equal_methods_do_not_differ():
    rows = [(5, 10), (6, 11)]
    assert {row.p for row in compare(table(a=rows, b=rows), "a", "b")} == {1.0}
