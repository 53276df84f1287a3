"""The comparison of schedulers: equal cost, and the table of gains."""

import diffusers
import pytest

from attncontrol.bench.rows import Row, append
from attncontrol.bench.schedulers import NOISE, SOLVERS, steps_of, table


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NOISE)
def test_every_scheduler_evaluates_the_network_as_often(name):
    if name == "dpm-sde":
        pytest.importorskip("torchsde")
    kind = getattr(diffusers, NOISE[name].scheduler)
    scheduler = kind(**NOISE[name].settings)
    scheduler.set_timesteps(steps_of(scheduler, 25))
    assert len(scheduler.timesteps) == 25


def test_gains_beside_those_of_the_first(tmp_path):
    assert list(SOLVERS["sprites-sd3"])[:2] == ["euler", "heun"]
    for name, hits in (("euler", (1, 1)), ("heun", (1, 0))):
        rows = [
            Row("colors", method, prompt, 0, hit, hit, 0.0, 0.0, 0.9, 1.0, 1.0)
            for prompt, after in zip("ab", hits, strict=True)
            for method, hit in (("plain", 0.0), ("auto", float(after)))
        ]
        append(tmp_path / "sprites-sd3" / name / "pictures.csv", rows)
    euler, heun = table(tmp_path).splitlines()[2:]
    assert "| sprites-sd3 | euler | 2 | 0 -> 100, +100 (100 to 100) |" in euler
    assert "| sprites-sd3 | heun | 2 | 0 -> 50, +50 (0 to 100) |" in heun
    assert heun.endswith("| -50 (-100 to 0) | -50 (-100 to 0) |")
