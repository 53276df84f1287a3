"""The choice of a noise by the maps of the first steps."""

import itertools

import numpy as np
import pytest
import torch

from attncontrol import Descent, record, steer
from attncontrol.batch.generate import generate
from attncontrol.batch.noise_choice import candidates, choose_seeds
from attncontrol.errors import SettingError
from attncontrol.families.known import family_of
from attncontrol.losses import AttendAndExcite
from tests.kit import zoo
from tests.kit.runs import HEIGHT, WIDTH

PROMPTS = ["a cat and a turtle", "a red cat and a turtle and a frog"]
WORDS = {PROMPTS[0]: ["cat", "turtle"], PROMPTS[1]: ["cat", "turtle", "frog"]}
DESCENT = Descent(step_size=5.0, thresholds={}, guided=0.75)
CALL = {"num_inference_steps": 8, "height": HEIGHT, "width": WIDTH, "output_type": "latent"}


def guided(pipe):
    return steer(pipe, AttendAndExcite(["cat", "turtle"]), descent=DESCENT)


def by_hand(pipe, prompt, seed, step):
    """The smallest distance of the centroids of squared maps of a step of a whole run."""
    sites = family_of(pipe).sites(family_of(pipe).denoiser(pipe))
    where = family_of(pipe).steering(sites)[0]
    generator = [torch.Generator().manual_seed(seed)]
    with guided(pipe), record(pipe, WORDS[prompt], where=where, steps=[step]) as maps:
        pipe([prompt], generator=generator, **CALL)
    centres = []
    for word in WORDS[prompt]:
        weight = maps[word][0].double().numpy() ** 2
        height, width = weight.shape
        y, x = np.mgrid[:height, :width] + 0.5
        centres.append(np.array([(weight * x).sum() / width, (weight * y).sum() / height]))
        centres[-1] /= weight.sum()
    return min(np.linalg.norm(one - other) for one, other in itertools.combinations(centres, 2))


def test_candidates_begin_with_the_seed_and_are_the_same_everywhere():
    assert candidates(7, 1) == [7]
    assert candidates(7, 4) == [7, 3704209680, 452084107, 1548333869]
    assert not set(candidates(8, 4)) & set(candidates(7, 4))


@pytest.mark.parametrize("make", [zoo.sd, zoo.flux])
def test_the_noise_whose_subjects_begin_farthest_apart_is_taken(make):
    pipe, noises = make().to(torch.float64), [[3, 4, 5], [6, 7, 8]]
    before = pipe(PROMPTS, generator=torch.Generator().manual_seed(0), **CALL).images
    chosen = choose_seeds(
        pipe, PROMPTS, noises, WORDS, share=0.375, around=lambda: guided(pipe), **CALL
    )
    for prompt, seeds, seed in zip(PROMPTS, noises, chosen, strict=True):
        distances = {each: by_hand(pipe, prompt, each, step=2) for each in seeds}
        assert seed == max(distances, key=distances.get)
    again = pipe(PROMPTS, generator=torch.Generator().manual_seed(0), **CALL).images
    assert torch.equal(before, again)


def test_pictures_tell_the_noise_they_were_made_from():
    pipe, call = zoo.sd(), {**CALL, "output_type": "pil"}
    options = {"method": "guided", "objective": AttendAndExcite(["cat"]), "descent": DESCENT}
    (one,) = generate(pipe, [(PROMPTS[0], 7)], ["cat"], noises=3, **options, **call)
    assert one.noise == 7  # a single word has nothing to be apart from
    (two,) = generate(pipe, [(PROMPTS[0], 7)], ["cat", "turtle"], noises=3, **options, **call)
    assert two.seed == 7
    assert two.noise in candidates(7, 3)
    (same,) = generate(pipe, [(PROMPTS[0], two.noise)], ["cat", "turtle"], **options, **call)
    assert np.array_equal(np.asarray(two.image), np.asarray(same.image))
    assert same.losses == two.losses


def test_the_share_is_one():
    with pytest.raises(SettingError, match=r"share=0\.0: "):
        choose_seeds(zoo.sd(), PROMPTS, [[1], [2]], WORDS, share=0.0)
