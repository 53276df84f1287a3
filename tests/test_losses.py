"""Every loss against a slow re-statement, values and gradients, in float64; and by hand."""

from dataclasses import replace

import pytest
import torch

from attncontrol.attention.regions import coverage
from attncontrol.errors import CallError, SettingError
from attncontrol.losses.a_star import AStar, Retention, Segregation
from attncontrol.losses.apart import Apart
from attncontrol.losses.attention_refocusing import AttentionRefocusing
from attncontrol.losses.auto import Auto, side_by_side
from attncontrol.losses.bounded_guidance import BoundedGuidance
from attncontrol.losses.box_self_guidance import BoxSelfGuidance
from attncontrol.losses.boxdiff import BoxDiff
from attncontrol.losses.conform import CONFORM
from attncontrol.losses.divide_and_bind import DivideAndBind
from attncontrol.losses.ebama import EBAMA
from attncontrol.losses.initno import InitNO, JointLoss
from attncontrol.losses.layout_guidance import LayoutGuidance
from attncontrol.losses.partcraft import PartCraft
from attncontrol.losses.placement import Centering, Placement
from attncontrol.losses.predicated import Predicated
from attncontrol.losses.rearrange import Rearrange
from attncontrol.losses.self_cross import SelfCross
from attncontrol.losses.self_guidance import SelfGuidance
from attncontrol.losses.syngen import SynGen
from attncontrol.maps.functional import centroid, otsu, size
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.boxes import coverages_like, on_grid
from attncontrol.prompts.syntax import subjects_of
from attncontrol.prompts.tokens import Span, Subject, Token
from tests.kit.steps import cells, step_maps
from tests.reference import losses as reference

WORDS = [["red", "cat"], "frog"]
SUBJECTS = [([3], [[2]]), ([6], [])]
PIECES = list(range(1, 7))


def random_maps(seed, count=2, height=3, width=4):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(count, 2, height, width, 9, generator=generator, dtype=torch.float64)
        .mul(2)
        .softmax(-1)
    )


HALVES = {"red cat": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.0, 1.0, 1.0)}
CASES = {
    "syngen": (SynGen(WORDS), lambda now, _: reference.syngen(now, SUBJECTS, PIECES)),
    "syngen with entities": (
        SynGen(WORDS, entities=True),
        lambda now, _: reference.syngen(now, SUBJECTS, PIECES, entities=True),
    ),
    "syngen, long words": (
        SynGen([["a red", "cat"], ["and a", "frog"]]),
        lambda now, _: reference.syngen(now, [([3], [[1, 2]]), ([6], [[4, 5]])], PIECES),
    ),
    "ebama": (EBAMA(WORDS), lambda now, _: reference.ebama(now, SUBJECTS, PIECES)),
    "ebama, long words": (
        EBAMA([["a#1", "red cat"], "frog"], weight=2.0),
        lambda now, _: reference.ebama(now, [([2, 3], [[1]]), ([6], [])], PIECES, weight=2.0),
    ),
    "divide and bind": (
        DivideAndBind(WORDS),
        lambda now, _: reference.divide_and_bind(now, SUBJECTS),
    ),
    "divide and bind, long words": (
        DivideAndBind([["a#1", "red", "cat"], ["and a", "frog"]], weight=3.0),
        lambda now, _: reference.divide_and_bind(
            now, [([3], [[1], [2]]), ([6], [[4, 5]])], weight=3.0
        ),
    ),
    "predicated": (Predicated(WORDS), lambda now, _: reference.predicated(now, SUBJECTS)),
    "predicated, long words": (
        Predicated([["a#1", "red cat"], ["and a", "frog"]], existence=1.0),
        lambda now, _: reference.predicated(now, [([2, 3], [[1]]), ([6], [[4, 5]])], existence=1.0),
    ),
    "conform": (CONFORM(WORDS), lambda now, before: reference.conform(now, before, SUBJECTS)),
    "segregation": (
        Segregation(["red", "cat", "frog"]),
        lambda now, _: reference.segregation(now, [([k], []) for k in (2, 3, 6)]),
    ),
    "partcraft": (
        PartCraft(HALVES),
        lambda now, _: reference.partcraft(now, [[2, 3], [6]], list(HALVES.values())),
    ),
    "self guidance": (
        SelfGuidance({"cat": (0.1, 0.9)}, {"frog": 0.2, "red": 0.9}),
        lambda now, _: reference.self_guidance(now, {3: (0.1, 0.9)}, {6: 0.2, 2: 0.9}),
    ),
    "retention": (
        Retention(["red cat", "frog"]),
        lambda now, before: reference.retention(now, before, [([2, 3], []), ([6], [])]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_slow_restatement(name):
    objective, slow = CASES[name]
    maps, before = random_maps(0).requires_grad_(), random_maps(1).mean(1)
    ours = objective(step_maps(maps, objective.words, before))
    (gradient,) = torch.autograd.grad(ours.sum(), maps)
    theirs = torch.stack(
        [torch.as_tensor(slow(*pair)) for pair in zip(maps.mean(1), before, strict=True)]
    )
    (expected,) = torch.autograd.grad(theirs.sum(), maps)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-9)
    assert gradient.abs().max() > 1e-6


BOXES = {
    "red cat": (0.0, 0.1, 0.6, 1.0),
    "frog": (0.7, 0.4, 0.75, 0.5),
}  # the second is smaller than a cell


def test_losses_of_boxes_equal_their_restatements():
    maps = random_maps(0, height=4, width=5).requires_grad_()
    words, boxes = [[2, 3], [6]], list(BOXES.values())
    slow = {
        BoxDiff: [reference.boxdiff(now, words, boxes) for now in maps.mean(1)],
        LayoutGuidance: [reference.layout_guidance([layer], words, boxes) for layer in maps],
        Centering: [reference.centering(now, words, boxes) for now in maps.mean(1)],
    }
    for kind, values in slow.items():
        objective = kind(BOXES)
        ours, theirs = objective(step_maps(maps, objective.words)), torch.stack(values)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
        gradients = [torch.autograd.grad(loss.sum(), maps)[0] for loss in (ours, theirs)]
        torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(
    "kind",
    [BoxDiff, LayoutGuidance, AttentionRefocusing, BoundedGuidance, PartCraft, Centering],
)
def test_every_prompt_may_have_a_layout_of_its_own(kind):
    maps = step_maps(random_maps(0, height=4, width=5), ["cat", "frog"])
    one, other = (
        {"cat": BOXES["frog"], "frog": BOXES["red cat"]},
        {"cat": (0.0, 0.0, 0.5, 1.0), "frog": BOXES["frog"]},
    )
    expected = torch.stack([kind(one)(maps)[0], kind(other)(maps)[1]])
    objective = kind({"a": one, "b": other})
    assert objective.words == {"a": ["cat", "frog"], "b": ["cat", "frog"]}
    torch.testing.assert_close(objective(replace(maps, prompts=("a", "b"))), expected)
    with pytest.raises(SettingError, match="the box of 'cat' must be"):
        kind({"a": one, "b": {"cat": (0.5, 0.0, 0.5, 1.0)}})
    with pytest.raises(SettingError, match="it is empty"):
        kind({"a": {}})


@pytest.mark.parametrize(
    "layout", [BOXES, {"red cat": (0.0, 0.0, 1.0, 1.0), "frog": (0.5, 0.0, 1.0, 1.0)}]
)
def test_losses_that_look_at_self_attention_equal_their_restatements(layout):
    maps, picture = (
        random_maps(0, height=4, width=5).requires_grad_(),
        cells(random_maps(0, height=4, width=5)).requires_grad_(),
    )
    words, boxes = [[2, 3], [6]], list(layout.values())
    pairs = list(zip(maps.mean(1), picture, strict=True))
    refocused = [reference.attention_refocusing(*pair, words, boxes, weight=0.7) for pair in pairs]
    crossed = [reference.self_cross(*pair, [[2, 3], [6], [4]]) for pair in pairs]
    bounded = [reference.bounded_guidance(*pair, words, boxes, 7, 0.9, 0.4) for pair in pairs]
    cases = [
        (BoundedGuidance(layout, words_weight=0.9, cells_weight=0.4), bounded),
        (AttentionRefocusing(layout, weight=0.7), refocused),
        (SelfCross(["red cat", "frog", "and"]), crossed),
    ]
    for objective, values in cases:
        ours, theirs = (
            objective(step_maps(maps, objective.words, picture=picture)),
            torch.stack(values),
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
        gradients = [
            torch.autograd.grad(loss.sum(), (maps, picture), retain_graph=True)
            for loss in (ours, theirs)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("words", [WORDS, [["red", "cat"], "frog", "and"]])
def test_apart_equals_its_restatement(words):
    maps = random_maps(0, height=4, width=5).requires_grad_()
    subjects = SUBJECTS if words is WORDS else [*SUBJECTS, ([4], [])]
    ours = Apart(words)(step_maps(maps, words))
    theirs = torch.stack([reference.apart([layer], layer.mean(0), subjects) for layer in maps])
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad(loss.sum(), maps)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-12)
    assert Apart(["cat"])(step_maps(maps, ["cat"])).tolist() == [0, 0]


def test_apart_by_hand():
    """The cat leans to the left, the frog to the right: half a map in the wrong half costs 1/4, and
    its centroid's distance."""
    maps = torch.zeros(1, 1, 2, 4, 9, dtype=torch.float64)
    maps[..., 0, 0, 3] = 0.5  # cat, at (1/8, 1/4)
    maps[..., 0, 2:, 6] = 0.4  # frog, at (3/4, 1/4): where it shall be across
    (loss,) = Apart(["cat", "frog"])(step_maps(maps, ["cat", "frog"]))
    assert loss.item() == pytest.approx((0.125**2 + 0.25**2 + 0.25**2) / 2)
    maps[..., 0, 0, 6] = (
        0.4  # a third of the frog, in the half of the cat; its centroid is (13/24, 1/4)
    )
    (loss,) = Apart(["cat", "frog"])(step_maps(maps, ["cat", "frog"]))
    assert loss.item() == pytest.approx(
        (0.125**2 + (0.75 - 13 / 24) ** 2 + 2 * 0.25**2 + (1 / 3) ** 2) / 2
    )


def test_auto_takes_the_losses_of_the_prompt():
    maps = random_maps(0, count=3)
    plain, bound = (step_maps(maps, of) for of in (["cat", "frog"], WORDS))
    mixed = replace(
        plain,
        subjects=(plain.subjects[0], bound.subjects[1], bound.subjects[2]),
        prompts=(*plain.prompts[:2], "a red cat on a frog"),
    )
    bare = [([3], []), ([6], [])]
    expected = [
        reference.ebama(maps[0].mean(0), bare, PIECES) / 2
        + 5 * reference.apart([maps[0]], maps[0].mean(0), bare),
        reference.syngen(maps[1].mean(0), SUBJECTS, PIECES, entities=True) / 2
        + 5 * reference.apart([maps[1]], maps[1].mean(0), SUBJECTS),
        reference.syngen(maps[2].mean(0), SUBJECTS, PIECES, entities=True),
    ]
    torch.testing.assert_close(Auto()(mixed), torch.stack(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("prompt", "groups"),
    [
        ("a cat and a frog", ["cat frog"]),
        ("a red cat, a blue frog and two dogs", ["cat frog dogs"]),
        ("a lion with a crown", []),
        ("a lion with a crown and a mouse", ["crown mouse"]),
        ("a cat next to a dog on a sofa", ["cat dog"]),
        ("a frog and its hat", []),
        ("a dog that is red and a cat that is blue", ["dog cat"]),
        ("A Cat, wearing a hat", []),
        ("a cat and a dog in a car near a tree", ["cat dog", "car tree"]),
        ("a sandal and a lion", ["sandal lion"]),
        ("two cats", []),
    ],
)
def test_what_stands_side_by_side(prompt, groups):
    tokens, found = [], []
    for entity in subjects_of(prompt):
        words = [*entity.modifiers, entity.noun]
        at = range(len(tokens), len(tokens) + len(words))
        tokens += [
            Token(i, i, word.text, word.start, word.end, special=False)
            for i, word in zip(at, words, strict=True)
        ]
        found.append(
            Subject(
                Span(words[-1].text, (at[-1],)),
                tuple(Span(w.text, (i,)) for w, i in zip(words, at[:-1], strict=False)),
            )
        )
    assert [
        " ".join(s.noun.text for s in group) for group in side_by_side(prompt, tokens, found)
    ] == groups


def blobs(seed, count=1):
    """Maps [1 1 height width token] of a token 3 that has ``count`` blobs and a token 6 that has
    one, over noise."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 1, 9, 12, 9, generator=generator, dtype=torch.float64) * 0.02
    y, x = torch.meshgrid(torch.arange(9), torch.arange(12), indexing="ij")
    for token, middles in ((3, [(2, 3), (6, 9)][:count]), (6, [(6, 4)])):
        for top, left in middles:
            logits[..., token] += 3 * (-((y - top) ** 2 + (x - left) ** 2) / 2.0).exp()
    return logits.softmax(-1)


@pytest.mark.parametrize("look", ["blobs", "two blobs", "noise"])
def test_initnos_search_equals_its_restatement(look):
    made = {"blobs": blobs, "two blobs": lambda i: blobs(i, 2)}.get(
        look, lambda i: random_maps(i, 1, 9, 12).mean(1, keepdim=True)
    )
    maps, words = torch.cat([made(i) for i in range(2)]).requires_grad_(), ["cat", "frog"]
    picture = cells(random_maps(5, 2, 9, 12)).requires_grad_()
    ours = JointLoss(words)(step_maps(maps, words, picture=picture))
    theirs = torch.stack(
        [reference.initno_search(a[0], b, [[3], [6]]) for a, b in zip(maps, picture, strict=True)]
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    inputs = (maps, picture)
    gradients = [torch.autograd.grad(of.sum(), inputs, allow_unused=True) for of in (ours, theirs)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other)


def test_a_clean_pair_is_below_the_target_of_initno():
    maps, apart = blobs(0), torch.eye(108, dtype=torch.float64).view(1, 9, 12, 9, 12)
    objective = InitNO(["cat", "frog"])
    assert objective.search.objective(step_maps(maps, ["cat", "frog"], picture=apart)) <= 0.5
    dirty = step_maps(blobs(0, 2), ["cat", "frog"], picture=apart)
    assert objective.search.objective(dirty) > 0.5


def test_initno_guides_by_the_excitation():
    maps = random_maps(0)
    objective = InitNO(["cat", "frog"])
    expected = [
        1 - min(word.max() for word in reference.word_maps(now, [[3], [6]])) for now in maps.mean(1)
    ]
    torch.testing.assert_close(objective(step_maps(maps, objective.words)), torch.stack(expected))
    assert (0.5 * SynGen() + objective).search == objective.search


def test_otsu_by_hand():
    image = torch.tensor([[[0.1, 0.2, 0.9], [0.15, 0.8, 0.1]], [[0.3, 0.3, 0.3], [0.3, 0.3, 0.3]]])
    assert otsu(image)[0].tolist() == [[False, False, True], [False, True, False]]
    assert otsu(image)[1].all()
    for seed in range(5):
        (random,) = torch.rand(1, 4, 5, generator=torch.Generator().manual_seed(seed)).double()
        assert otsu(random[None])[0].nonzero().tolist() == [
            list(cell) for cell in reference.otsu(random)
        ]


def test_place_and_size_by_hand():
    word = torch.tensor([[0.0, 0.0, 3.0, 1.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert centroid(word).tolist() == pytest.approx([0.75 * 0.625 + 0.25 * 0.875, 0.25])
    assert size(torch.eye(2, dtype=torch.float64)).item() == pytest.approx(0.5)
    for bad in ({}, {"cat": (0.5, 1.5)}):
        with pytest.raises(SettingError, match="fractions of the picture between 0 and 1"):
            SelfGuidance(centers=bad)


CHANGES = {
    "moves": {"cat": (-0.1, 0.2)},
    "scales": {"frog": 1.5},
    "shapes": ["red cat"],
    "appearances": ["frog", "cat"],
}


def test_rearranging_equals_its_restatement():
    maps, features = (
        random_maps(0, count=3).requires_grad_(),
        random_maps(1, count=3)[:, 0].detach().requires_grad_(),
    )
    objective, layers = Rearrange(**CHANGES), {"self": features, "same": 2 * features}
    ours = objective(replace(step_maps(maps, objective.words), features=layers))
    mean = maps.mean(1)
    of_words = torch.cat([mean, mean[..., 2:3] + mean[..., 3:4]], -1)  # token 9: "red cat"
    each = [[layer[i] for layer in layers.values()] for i in range(3)]
    changes = {3: (-0.1, 0.2)}, {6: 1.5}, [9], [6, 3]
    first = of_words[0].detach(), [layer.detach() for layer in each[0]]
    theirs = [reference.rearrange(of_words[i], each[i], *first, *changes) for i in (1, 2)]
    torch.testing.assert_close(ours, torch.stack([ours[0] * 0, *theirs]), rtol=1e-9, atol=1e-12)
    gradients = [
        torch.autograd.grad(loss, (maps, features), retain_graph=True)
        for loss in (ours.sum(), sum(theirs))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-12)
    assert all(
        gradient[0].abs().max() == 0 and gradient[1:].abs().amax() > 1e-4
        for gradient in gradients[0]
    )


def test_rearranging_needs_the_first_picture():
    with pytest.raises(SettingError, match="at least one word to move, to scale or to keep"):
        Rearrange()
    with pytest.raises(SettingError, match=r"Rearrange\.scales must be .* to a number above 0"):
        Rearrange(scales={"cat": 0.0})
    objective = Rearrange(shapes=["cat"])
    with pytest.raises(CallError, match="the original: make at least two"):
        objective(step_maps(random_maps(0, count=1), ["cat"]))


def test_self_attention_of_several_grids_is_averaged_on_the_finest():
    fine, coarse = (
        cells(random_maps(0, height=4, width=6)),
        cells(random_maps(0, height=2, width=3)),
    )
    mean = StepMaps({}, (), (), (), pictures={"a": fine, "b": coarse}).picture()
    torch.testing.assert_close(mean.sum((3, 4)), torch.ones(2, 4, 6, dtype=torch.float64))
    only = StepMaps({}, (), (), (), pictures={"a": fine}).picture()
    torch.testing.assert_close(only, fine)
    uniform = torch.full((1, 2, 3, 2, 3), 1 / 6, dtype=torch.float64)
    spread = StepMaps({}, (), (), (), pictures={"a": fine[:1], "b": uniform}).picture()
    torch.testing.assert_close(spread, (fine[:1] + 1 / 24) / 2)


def test_masks_are_layouts_too():
    mask = torch.zeros(8, 10, dtype=torch.bool)
    mask[1:8, :6] = True
    assert torch.equal(on_grid(mask, 4, 5), on_grid((0.0, 0.125, 0.6, 1.0), 4, 5))
    assert on_grid((0.7, 0.4, 0.75, 0.5), 4, 5).nonzero().tolist() == [[1, 3]]
    assert on_grid((0.0, 0.0, 1.0, 1.0), 4, 5).all()


def test_boxes_cover_shares_of_cells():
    assert coverage((0.0, 0.125, 0.7, 1.0), 4, 5)[:, 3].tolist() == pytest.approx(
        [0.25, 0.5, 0.5, 0.5]
    )
    mask = torch.zeros(8, 10, dtype=torch.bool)
    mask[1:8, :7] = True
    torch.testing.assert_close(coverage(mask, 4, 5), coverage((0.0, 0.125, 0.7, 1.0), 4, 5))
    (image,) = coverages_like({"cat": (0.7, 0.4, 0.75, 0.5)}, torch.zeros(1, 4, 5, 1), [])
    assert image[0].dtype == torch.float32
    assert image[0].max() == image[0][1, 3] == 1


def test_placement_is_layout_guidance_and_centering():
    maps = step_maps(random_maps(0, height=4, width=5), ["red cat", "frog"])
    both = Placement(BOXES)
    assert both.descent.max_refinements == 3
    assert both(maps).shape == (2,)
    assert torch.equal(both(maps), LayoutGuidance(BOXES)(maps) + 2 * Centering(BOXES)(maps))
    spot = torch.zeros(1, 1, 4, 5, 9, dtype=torch.float64)
    spot[..., 1, 3, 6] = 1.0
    (loss,) = Centering({"frog": (0.5, 0.5, 0.9, 1.0)})(step_maps(spot, ["frog"]))
    assert loss.item() == pytest.approx((0.7 - 0.7) ** 2 + (0.375 - 0.75) ** 2)
    mask = torch.zeros(8, 10, dtype=torch.bool)
    mask[4:, 5:9] = True
    torch.testing.assert_close(Centering({"frog": mask})(step_maps(spot, ["frog"]))[0], loss)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({}, "it is empty"),
        (
            {"cat": (0.5, 0.0, 0.5, 1.0)},
            r"the box of 'cat' must be \(left, top, right, bottom\) in fractions of the picture",
        ),
        ({"cat": (0.0, 0.0, 256.0, 256.0)}, "in fractions of the picture"),
        ({"cat": torch.zeros(4, 4, dtype=torch.bool)}, "the mask of 'cat' is empty"),
    ],
)
def test_bad_layouts(layout, message):
    with pytest.raises(SettingError, match=message):
        BoxDiff(layout)


def test_the_first_step_has_no_memory():
    maps = random_maps(0)
    assert Retention(["cat"])(step_maps(maps, ["cat"])).tolist() == [0, 0]
    assert CONFORM(["cat", "frog"])(step_maps(maps, ["cat", "frog"])).tolist() == [0, 0]
    alone = CONFORM(WORDS)(step_maps(maps, WORDS))
    expected = [reference.conform(now, None, SUBJECTS) for now in maps.mean(1)]
    torch.testing.assert_close(alone, torch.stack(expected))


def test_overlap_by_hand():
    maps = torch.zeros(1, 1, 2, 2, 9, dtype=torch.float64)
    maps[0, 0, :, :, 3] = torch.tensor(
        [[0.4, 0.2], [0.0, 0.0]]
    )  # cat, divided by its maximum: 1, 1/2, 0, 0
    maps[0, 0, :, :, 6] = torch.tensor([[0.0, 0.3], [0.3, 0.0]])  # frog: 0, 1, 1, 0
    words = ["cat", "frog"]
    assert Segregation(words)(step_maps(maps, words)).item() == pytest.approx(0.5 / 3.5)
    kept = Retention(words)(
        step_maps(maps, words, maps.mean(1))
    ).item()  # masks: cat 1, 0, 0, 0; frog 0, 1, 1, 0
    assert kept == pytest.approx((1 - 1 / 2.5) + (1 - 2 / 4))


def test_a_star_is_segregation_and_retention():
    maps, words = random_maps(0), ["cat", "frog"]
    for before in (None, random_maps(1).mean(1)):
        of_step = step_maps(maps, words, before)
        parts = Segregation(words)(of_step) + Retention(words)(of_step)
        assert torch.equal(AStar(words)(of_step), parts)
    assert AStar().remembers


def test_boxes_are_the_targets_of_self_guidance():
    maps = step_maps(random_maps(0), ["red cat", "frog"])
    boxes = {"red cat": (0.0, 0.25, 0.5, 1.0), "frog": (0.5, 0.5, 1.0, 1.0)}
    by_hand = SelfGuidance(
        {"red cat": (0.25, 0.625), "frog": (0.75, 0.75)}, {"red cat": 0.375, "frog": 0.25}
    )
    of_both = replace(maps, subjects=tuple((*of, *of) for of in maps.subjects))
    torch.testing.assert_close(BoxSelfGuidance(boxes)(maps), by_hand(of_both))


def test_sums_find_their_own_words():
    total = SynGen(WORDS) + 0.5 * Retention(["frog"])
    assert [(weight, type(term).__name__) for weight, term in total.terms] == [
        (1.0, "SynGen"),
        (0.5, "Retention"),
    ]
    doubled = 2.0 * (Segregation(["cat"]) + Retention(["cat"]))
    assert [(w, type(t).__name__) for w, t in doubled.terms] == [
        (2.0, "Segregation"),
        (2.0, "Retention"),
    ]
    assert total.descent == SynGen().descent
