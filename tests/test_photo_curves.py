"""The chart of editors of photos over their strengths."""

import sys
from dataclasses import fields

import pytest

from attncontrol.bench.photos import curves
from attncontrol.bench.photos.rows import PhotoRow
from attncontrol.bench.rows import append
from attncontrol.errors import ResultsError
from attncontrol.export.chart import is_chart


def rows(kind, editor, shown, outside):
    """Of four pairs; ``shown`` of them show what is asked."""
    own = {"suite": kind, "method": editor, "inversion": "exact", "psnr_outside": outside}
    numbered = [{"prompt": f"a -> b {k}", "seed": k, "shown": float(k < shown)} for k in range(4)]
    rest = {field.name: 1.0 for field in fields(PhotoRow)}
    return [PhotoRow(**rest | own | each) for each in numbered]


@pytest.fixture
def folder(tmp_path):
    for model, less in (("one", 0), ("two", 1)):
        file = tmp_path / "runs" / model / "photos.csv"
        append(file, [
            *rows("recolour", "none", 4, 20.0), *rows("recolour", "p2p+within@1", 4, 20.0),
            *rows("recolour", "p2p@0.8", 2 - less, 32.0),
            *rows("recolour", "p2p@0.2", 4 - less, 26.5), *rows("swap", "p2p@0.2", 1, 30.0),
        ])  # fmt: skip
    return tmp_path / "runs"


def test_curves_are_points_in_the_order_of_strengths(folder):
    found = curves.curves_of(folder, "exact")
    assert list(found) == ["recolour", "swap"]
    one, two = found["recolour"].values()
    assert [(each.value, each.at.x, each.at.y) for each in one] == [
        (0.2, 26.5, 100.0), (0.8, 32.0, 50.0)
    ]  # fmt: skip
    assert [each.at.y for each in two] == [75.0, 25.0]
    assert all(each.at.low <= each.at.y <= each.at.high for each in (*one, *two))
    with pytest.raises(ResultsError, match="of several strengths by ddim"):
        curves.curves_of(folder, "ddim")


def test_the_command_prints_a_table_and_draws(folder, tmp_path, monkeypatch, capsys):
    file = tmp_path / "curves.png"
    monkeypatch.setattr(sys, "argv", ["curves", str(folder), str(file)])
    curves.main()
    assert is_chart(file)
    assert capsys.readouterr().out.splitlines() == [
        "| kind | model | editor | 0.2 | 0.8 |",
        "|---|---|---|---|---|",
        "| recolour | one | `p2p` | 100 / 26.5 | 50 / 32.0 |",
        "| recolour | two | `p2p` | 75 / 26.5 | 25 / 32.0 |",
        "| swap | one | `p2p` | 25 / 30.0 |  |",
        "| swap | two | `p2p` | 25 / 30.0 |  |",
    ]
