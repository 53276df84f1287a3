import numpy as np

from attncontrol.bench.prompts import benchmark_prompts, things_of
from attncontrol.bench.rates import gain, wilson
from attncontrol.sprites.scenes import (
    COLORS,
    NOUNS,
    P_MISSING,
    P_SWAP,
    SIZE,
    Thing,
    caption,
    compose,
    render,
    sample,
    sprite,
)
from attncontrol.sprites.training.captions import word_objects
from attncontrol.sprites.training.grounding import grounding_loss


def test_captions_follow_the_benchmarks_grammar():
    car, apple, cat = Thing("car", "blue"), Thing("apple", "green"), Thing("cat")
    assert caption((car, apple))[0] == "a blue car and a green apple"
    assert caption((cat, Thing("bow", "red")), "with")[0] == "a cat with a red bow"
    text, nouns, colors = caption((cat, car, apple))
    assert text == "a cat, a blue car and a green apple"
    assert [text[a:b] for a, b in nouns] == ["cat", "car", "apple"]
    assert [span and text[slice(*span)] for span in colors] == [None, "blue", "green"]


def test_scenes_are_deterministic_and_masks_are_exact():
    for seed in range(20):
        scene = sample(np.random.default_rng(seed))
        assert scene == sample(np.random.default_rng(seed))
        picture, masks = render(scene)
        assert picture.shape == (SIZE, SIZE, 3)
        assert (masks.sum(0) <= 1).all()
        for thing, mask, (left, top, width, height) in zip(
            scene.shown, masks, scene.boxes, strict=True
        ):
            inside = np.zeros_like(mask)
            inside[top : top + height, left : left + width] = True
            assert not (mask & ~inside).any()
            assert mask.any() == (thing is not None)


def test_failures_are_planted_at_the_stated_rates():
    rng = np.random.default_rng(0)
    things = (Thing("car", "red"), Thing("apple", "blue"))
    scenes = [compose(things, rng, failures=True) for _ in range(4000)]
    missing = np.mean([None in scene.shown for scene in scenes])
    swapped = np.mean(
        [scene.shown == (Thing("car", "blue"), Thing("apple", "red")) for scene in scenes]
    )
    assert abs(missing - P_MISSING) < 0.03
    assert abs(swapped - P_SWAP) < 0.03
    assert all(compose(things, rng).shown == things for _ in range(20))


def test_a_named_color_is_the_mean_hue_of_the_sprite():
    for noun in NOUNS:
        for color, rgb in COLORS.items():
            pixels = np.asarray(sprite(Thing(noun, color)), dtype=float)
            mean = np.median(pixels[pixels[..., 3] > 200][:, :3], 0)
            nearest = min(COLORS, key=lambda name: np.abs(np.array(COLORS[name]) - mean).sum())
            assert nearest == color, (noun, color, mean, rgb)


def test_tokens_know_their_objects():
    rng = np.random.default_rng(0)
    scene = compose((Thing("elephant", "red"), Thing("car", "blue")), rng)
    offsets = [
        (0, 0),
        (0, 1),
        (2, 5),
        (6, 9),
        (9, 14),
        (15, 18),
        (19, 20),
        (21, 25),
        (26, 29),
        (0, 0),
    ]
    assert scene.caption == "a red elephant and a blue car"
    assert word_objects(scene, offsets) == [-1, -1, 0, 0, 0, -1, -1, 1, 1, -1]


def test_grounding_loss_by_hand():
    import torch

    coverage = torch.zeros(1, 1, 4, 4)
    coverage[0, 0, :2] = 1  # the upper half
    maps = torch.full((1, 16, 3), 0.1)
    maps[0, :8, 1] = 0.3  # token 1: 3/4 of its attention in the upper half
    loss = grounding_loss([maps], torch.tensor([[-1, 0, -1]]), coverage, torch.ones(1))
    torch.testing.assert_close(loss, torch.tensor(0.25**2))


def test_the_benchmark_has_276_prompts_of_two_things_each():
    groups = benchmark_prompts()
    assert {name: len(prompts) for name, prompts in groups.items()} == {
        "animal-animal": 66,
        "animal-object": 144,
        "object-object": 66,
    }
    assert all(len(things_of(prompt)) == 2 for prompts in groups.values() for prompt in prompts)
    assert things_of("a green glasses and a black crown") == (
        Thing("glasses", "green"),
        Thing("crown", "black"),
    )


def test_intervals():
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    plain, guided = np.zeros((50, 2)), np.ones((50, 2))
    result = gain(plain, guided)
    assert (result["n"], result["gain"], result["gain_interval"]) == (100, 1.0, [1.0, 1.0])
