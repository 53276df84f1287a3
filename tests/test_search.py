"""The search for an initial noise: on a quadratic with a known answer, and in front of a
pipeline."""

import pytest
import torch

from attncontrol import Descent, Where, steer
from attncontrol.losses.initno import InitNO, JointLoss
from attncontrol.objectives.noise_search import NoiseSearch, _divergence, _pulled_back, _reordered
from tests.kit.runs import run
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import flux


def test_pulling_back_ends_at_the_tolerance():
    parts = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_hand = -0.5 * (1 + parts[1] - parts[0] ** 2 - parts[1].exp()).mean()
    assert _divergence(parts) == pytest.approx(by_hand.item())
    pulled = _pulled_back(parts, 1e-3)
    assert _divergence(pulled) == pytest.approx(1e-3, rel=1e-6)
    ratio = pulled / parts
    torch.testing.assert_close(ratio, torch.full_like(ratio, ratio[0, 0, 0].item()))
    assert torch.equal(_pulled_back(pulled, 1e-2), pulled)


def test_rounds_are_the_same_noise_in_another_order():
    noise = torch.randn(4, 3, 5, dtype=torch.float64)
    assert torch.equal(_reordered(noise, 0), noise)
    one, two = _reordered(noise, 1), _reordered(noise, 2)
    assert not torch.equal(one, two)
    assert torch.equal(one.flatten().sort().values, noise.flatten().sort().values)
    assert torch.equal(_reordered(noise, 1), one)


def quadratic(target):
    """Loss and gradient of the distance to ``target``, and how often they were asked for."""
    calls = []

    def evaluate(images, change):
        calls.append(images.tolist())
        x = NOISE[images] + change[images]
        return ((x - target) ** 2).flatten(1).mean(1), 2 * (x - target) / x[0].numel()

    return evaluate, calls


NOISE = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_search_stops_at_the_target_and_keeps_the_best():
    evaluate, calls = quadratic(NOISE[:1] + 0.02)
    search = NoiseSearch(JointLoss(), target=1e-4, rounds=2, steps=30, last=0, learning_rate=0.01)
    change = search.run(evaluate, NOISE[:1])
    assert ((change - 0.02) ** 2).mean() <= 1e-4
    assert len(calls) <= 31
    evaluate, calls = quadratic(NOISE[1:2] + 10.0)
    hopeless = NoiseSearch(JointLoss(), target=0.0, rounds=2, steps=3, last=4)
    change = hopeless.run(evaluate, NOISE)
    assert calls == [[0, 1]] * (2 * 4 + 5)
    for i in range(2):
        x = (NOISE + change)[i]
        assert abs(x.mean()) < 0.3
        assert 0.7 < x.std() < 1.3
        assert ((x - NOISE[1] - 10) ** 2).mean() < max(
            ((_reordered(NOISE[i], n) - NOISE[1] - 10) ** 2).mean() for n in (0, 1)
        )


def test_the_last_steps_begin_at_the_noise_of_the_best_round():
    asked = []

    def evaluate(_, change):
        asked.append(NOISE[0] + change[0])
        ahead = asked[-1] - _reordered(NOISE[0], 1)
        return ahead.square().mean()[None], 2 * ahead[None] / ahead.numel()

    NoiseSearch(JointLoss(), target=-1.0, rounds=3, steps=2, last=2).run(evaluate, NOISE[:1])
    starts = [asked[0], asked[3], asked[6], asked[9]]
    for start, number in zip(starts, (0, 1, 2, 1), strict=True):
        assert torch.equal(start, NOISE[0] + (_reordered(NOISE[0], number) - NOISE[0]))


def test_images_that_are_done_leave_the_batch():
    evaluate, calls = quadratic(NOISE[:1] + 0.02)
    search = NoiseSearch(JointLoss(), target=1e-4, rounds=1, steps=30, last=1, learning_rate=0.01)
    both = search.run(evaluate, NOISE)
    assert calls[0] == [0, 1]
    assert calls[-1] == [1]
    for i in range(2):
        evaluate, _ = quadratic(NOISE[:1] + 0.02)
        alone = search.run(
            lambda images, change, i=i, of=evaluate: of(images + i, change.expand(2, -1, -1, -1)),
            NOISE[i : i + 1],
        )
        assert torch.equal(both[i], alone[0])


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_in_front_of_a_pipeline(name):
    pipe = {"sd": tiny_sd, "flux": flux}[name]()
    where = Where(kind=("cross", "joint"))
    shape = (2, 4, 8, 12) if name == "sd" else (2, 24, 16)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    prompts = ["a red cat and a turtle", "a cat with a turtle"]

    class Short(InitNO):
        @property
        def search(self):
            return NoiseSearch(JointLoss(self.words), target=0.0, rounds=2, steps=3, last=2)

    def guided(objective, which):
        still = Descent(step_size=0.0, guided=1.0, thresholds={})
        with steer(pipe, objective, where=where, descent=still):
            return run(name, pipe, [prompts[i] for i in which], latents=latents[which].clone())

    plain = guided(JointLoss(["cat", "turtle"]), [0, 1])
    both = guided(Short(["cat", "turtle"]), [0, 1])
    assert (both - plain).abs().max() > 1e-3
    for i in range(2):
        alone = guided(Short(["cat", "turtle"]), [i])
        torch.testing.assert_close(both[i], alone[0], rtol=0, atol=1e-6)
