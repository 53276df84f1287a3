"""The chart of gains over relative steps."""

import shutil
import sys

import pytest
from PIL import Image

from attncontrol.bench import step_curves
from attncontrol.bench.rows import Row, append
from attncontrol.errors import ResultsError
from attncontrol.export.chart import is_chart


def rows(method, bound):
    """Of four prompts; ``bound`` of them in their colours."""
    return [
        Row("colors", method, f"prompt {k}", 0, 1.0, float(k < bound), 0.0, 0.0, 0.9, 1.0, 10.0)
        for k in range(4)
    ]


@pytest.fixture
def folder(tmp_path):
    for model in ("one", "two"):
        for share, bound in ((12, 2), (3, 3), (1.5, 4)):
            file = tmp_path / "runs" / model / f"{share:g}" / "pictures.csv"
            append(file, [*rows("plain", 1), *rows("auto", bound)])
    return tmp_path / "runs"


def test_gains_are_points_over_plain_in_the_order_of_shares(folder):
    (auto,) = step_curves.curves_of(folder / "one", "bound").values()
    assert [(point.x, point.y) for point in auto] == [(1.5, 75.0), (3.0, 50.0), (12.0, 25.0)]
    for point in auto:
        assert point.low <= point.y <= point.high
    assert all(p.y == 0 for p in step_curves.curves_of(folder / "two", "present")["auto"])


def drawn(folder, file, monkeypatch):
    """The width of the chart of a folder, in inches."""
    monkeypatch.setattr(sys, "argv", ["step_curves", str(folder), str(file)])
    step_curves.main()
    assert is_chart(file)
    with Image.open(file) as picture:
        return picture.width / 150


def test_the_chart_has_a_panel_for_every_model(folder, monkeypatch, tmp_path):
    both = drawn(folder, tmp_path / "both.png", monkeypatch)
    shutil.rmtree(folder / "two")
    assert both - drawn(folder, tmp_path / "one.png", monkeypatch) == pytest.approx(2.6, abs=0.02)
    shutil.rmtree(folder / "one")
    with pytest.raises(ResultsError, match="has no folder of a model"):
        drawn(folder, tmp_path / "none.png", monkeypatch)
