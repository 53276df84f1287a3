"""The front door of ``steer``: what is an objective, sums from both sides, and what a loss must
return."""

from dataclasses import dataclass, field

import pytest
import torch

from attncontrol.errors import LossError, SettingError
from attncontrol.losses import AttendAndExcite, InitNO, Rearrange, Retention, SelfCross, SynGen
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.noise_search import NoiseSearch
from attncontrol.objectives.objective import (
    Objective,
    OfFunction,
    Sum,
    as_objective,
    losses_of,
    terms_of,
)
from tests.kit.steps import step_maps

WORDS = ["cat", "frog"]


def darker(maps):
    return maps.mean()[..., 0].mean((1, 2))


def brighter(maps):
    return -darker(maps)


def random_maps(count=3):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(count, 2, 3, 4, 9, generator=generator, dtype=torch.float64).softmax(-1)
    return step_maps(maps.requires_grad_(), WORDS)


def test_defaults_say_that_nothing_is_needed():
    objective = as_objective(darker)
    assert objective == OfFunction(darker)
    assert objective.words == ()
    assert objective.descent == Descent()
    assert objective.search is None
    needs = ("remembers", "self_attention", "features", "compares")
    assert [getattr(objective, name) for name in needs] == [False] * 4
    assert as_objective(SynGen()) == SynGen()
    with pytest.raises(TypeError, match="abstract"):
        Objective()


def test_defaults_give_way_to_fields_attributes_and_properties():
    @dataclass(frozen=True)
    class Mine(Objective):
        words: list[str]
        descent: Descent = field(default_factory=lambda: Descent(guided=1.0))
        compares = True

        @property
        def features(self):
            return len(self.words) > 1

        def __call__(self, maps):
            return darker(maps)

    mine = Mine(["cat"])
    assert (mine.words, mine.descent.guided, mine.compares, mine.features) == (
        ["cat"],
        1,
        True,
        False,
    )
    assert Mine(WORDS).features
    assert Mine().words == ()  # the default of the class above


def test_sums_from_both_sides():
    one, two = SynGen(WORDS), Retention(WORDS)
    assert (one + two).terms == ((1.0, one), (1.0, two))
    assert (one + darker).terms == ((1.0, one), (1.0, OfFunction(darker)))
    assert (darker + one).terms == ((1.0, OfFunction(darker)), (1.0, one))
    assert (darker + (one + two)).terms == ((1.0, OfFunction(darker)), (1.0, one), (1.0, two))
    assert sum([one]) is one
    assert sum([one, two, darker]) == one + two + darker
    assert sum([one, 0.5 * two]).terms == ((1.0, one), (0.5, two))
    assert 3 * one == one * 3.0 == Sum(((3.0, one),))
    assert (2 * (one + two * 4)).terms == ((2.0, one), (8.0, two))
    assert terms_of(darker) == ((1.0, OfFunction(darker)),)
    assert terms_of(one) == ((1.0, one),)
    for wrong in ("syngen", 1, None, SynGen):
        with pytest.raises(LossError):
            one + wrong
        with pytest.raises(LossError):
            wrong + one


def test_fractions_of_a_run_are_decimal_numbers():
    for total in (20, 25, 50, 100):
        for step in range(total):
            fraction = step / total
            descent = Descent(guided=fraction, thresholds={fraction: 0.25})
            assert [descent.updates(i, total) for i in range(total)].count(True) == step
            assert descent.target(step, total) == 0.75
    assert Descent(guided=0.5).updates(24, 51)
    assert not Descent(guided=0.5).updates(25, 51)
    assert [Descent(guided=1 / 3).updates(step, 30) for step in (9, 10)] == [True, False]


def test_a_sum_needs_what_any_term_needs():
    total = InitNO(WORDS) + 2.0 * Retention(WORDS) + SelfCross(WORDS) + Rearrange(shapes=WORDS)
    assert total.remembers
    assert total.self_attention
    assert total.compares
    assert not total.features
    assert total.words == WORDS
    assert total.descent == InitNO().descent
    assert total.search == NoiseSearch(InitNO(WORDS).search.objective, target=0.5)
    assert (darker + SynGen()).descent == Descent()
    assert (SynGen() + InitNO(WORDS)).search == InitNO(WORDS).search
    assert (SynGen() + darker).search is None
    assert (SynGen(WORDS) + darker).words == WORDS
    with pytest.raises(SettingError, match=r"different words, \['cat'\] and None"):
        _ = (SynGen(["cat"]) + Retention()).words


def test_the_loss_of_a_sum():
    maps = random_maps()
    one, two = SynGen([["red", "cat"]]), AttendAndExcite(WORDS)
    expected = one(maps) + 0.5 * two(maps) + 3.0 * darker(maps)
    torch.testing.assert_close((one + 0.5 * two + 3.0 * as_objective(darker))(maps), expected)
    assert torch.equal(losses_of(one + 0.5 * two, maps), one(maps) + 0.5 * two(maps))


@dataclass
class Loose:
    """Not derived from Objective."""

    words: tuple = ("cat",)

    def __call__(self, maps):
        return darker(maps)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (SynGen, r"SynGen is a class, .*: write SynGen\(\.\.\.\)"),
        ("syngen", r"'syngen' is no objective: .*attncontrol\.losses\.method"),
        (None, "None is no objective: an objective is an instance like SynGen"),
        (3.0, "3.0 is no objective"),
        ([SynGen()], "is no objective"),
        (Loose(), "Loose sets words, .*: derive its class from attncontrol.Objective"),
    ],
)
def test_what_is_no_objective(given, message):
    for door in (as_objective, terms_of):
        with pytest.raises(LossError, match=message):
            door(given)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            lambda maps: darker(maps).mean(),
            r"torch.float64 of shape \[\], not one loss per image, .* \[3\]",
        ),
        (
            lambda maps: maps.mean()[..., 0],
            r"of shape \[3, 3, 4\], .*: average over words and cells",
        ),
        (lambda maps: darker(maps)[:1], r"of shape \[1\]"),
        (lambda maps: darker(maps).long(), r"torch.int64 of shape \[3\]"),
        (lambda maps: darker(maps).mean().item(), r"float -?0\.\d+, not one loss per image"),
        (lambda maps: darker(maps).tolist(), "returned list"),
        (lambda _: None, "returned NoneType None"),
        (lambda maps: darker(maps).detach(), r"losses without gradient.*leave out \.detach"),
    ],
)
def test_what_is_no_loss(loss, message):
    maps = random_maps()
    for objective in (as_objective(loss), SynGen() + loss):
        with pytest.raises(LossError, match=message):
            losses_of(objective, maps)


def test_messages_name_the_loss():
    def mine(maps):
        return maps.mean().mean()

    with pytest.raises(LossError, match="mine returned torch"):
        losses_of(as_objective(mine), random_maps())

    class Flat(Objective):
        def __call__(self, maps):
            return maps.mean().mean()

    with pytest.raises(LossError, match=r"^Flat returned torch"):
        losses_of(Flat(), random_maps())


def test_without_gradient_in_the_maps_none_is_asked_for():
    maps = random_maps()
    with torch.no_grad():
        assert not losses_of(
            as_objective(darker), step_maps(maps.mean()[:, None], WORDS)
        ).requires_grad
