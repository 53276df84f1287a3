"""Scores of sites: how well word maps hit known masks."""

import numpy as np
import pytest
import torch

from attncontrol.analysis.grounding import (
    ALL,
    Example,
    Score,
    _score,
    mean_over_timesteps,
    score_sites,
)
from attncontrol.bench.examples import examples
from attncontrol.errors import WordError
from attncontrol.families.known import family_of
from tests.kit.zoo import EXTRA, ZOO


def test_a_score_by_hand():
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    word = torch.tensor([[0.9, 0.1], [0.1, 0.1]])
    inside, iou = _score(
        torch.nn.functional.interpolate(word[None, None], (4, 4), mode="nearest")[0, 0], mask
    )
    assert inside
    assert iou == 1.0
    inside, iou = _score(
        torch.tensor([[0.0, 1.0], [0.0, 0.0]]).repeat_interleave(2, 0).repeat_interleave(2, 1), mask
    )
    assert not inside
    assert iou == 0.0


def test_mean_over_timesteps():
    rows = [
        Score("a", None, 10.0, 0.5, 0.2, 8),
        Score("b", 1, 10.0, 1.0, 1.0, 8),
        Score("a", None, 30.0, 1.0, 0.4, 8),
    ]
    first, second = mean_over_timesteps(rows)
    assert (first.site, first.head, first.timestep, first.pointing, first.n) == (
        "a",
        None,
        20.0,
        0.75,
        8,
    )
    assert first.iou == pytest.approx(0.3)
    assert second == Score("b", 1, 10.0, 1.0, 1.0, 8)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "pixart"])
def test_every_family_can_be_scored(name):
    pipe = ZOO[name]()
    family = family_of(pipe)
    call = {k: v for k, v in EXTRA.get(name, {}).items() if k not in ("height", "width")}
    scenes = examples(3)
    scores = score_sites(pipe, scenes, timesteps=(700.0, 312.5), heads=True, batch=2, **call)
    sites = [site for site in family.sites(family.denoiser(pipe)) if site.kind != "self"]
    timesteps = sorted({score.timestep for score in scores})
    assert timesteps == [312.5, 700.0]
    assert len(scores) == 2 * (1 + len(sites) + sum(site.heads for site in sites))
    assert {score.site for score in scores} == {ALL, *(site.name for site in sites)}
    assert all(score.n == 6 and 0 <= score.iou <= 1 for score in scores)
    assert all(score.pointing * 6 == pytest.approx(round(score.pointing * 6)) for score in scores)
    assert not family.denoiser(pipe)._forward_pre_hooks
    again = score_sites(pipe, scenes, timesteps=(700.0, 312.5), heads=True, batch=3, seed=0, **call)
    for one, other in zip(scores, again, strict=True):  # batches do not matter
        assert (one.site, one.head, one.timestep, one.pointing) == (
            other.site,
            other.head,
            other.timestep,
            other.pointing,
        )
        assert one.iou == pytest.approx(other.iou, abs=1e-3)


def test_a_word_that_is_not_there():
    scene = examples(1)[0]
    with pytest.raises(WordError, match="'unicorn' is not in the prompt"):
        score_sites(
            ZOO["sd"](),
            [Example(scene.picture, scene.prompt, {"unicorn": next(iter(scene.masks.values()))})],
        )


def test_scenes_of_another_size():
    (small,), (large,) = examples(1), examples(1, side=256)
    assert large.picture.shape == (256, 256, 3)
    for word, mask in small.masks.items():
        assert abs(large.masks[word].mean() - mask.mean()) < 0.01
