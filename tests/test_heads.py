"""The search for heads: the same answer batched, interrupted and image by image."""

import json
from math import ceil

import pytest
import torch

from attncontrol import Where
from attncontrol.batch.chosen_heads import load_heads
from attncontrol.batch.head_search import search_heads
from attncontrol.batch.results import read_lines
from attncontrol.batch.strengths import strengths
from attncontrol.edits.soft_identity import SoftIdentity
from attncontrol.errors import CouplingError, ResultsError
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.places import PerImage
from tests.kit.runs import run
from tests.kit.tiny import tiny_sd

WHERE = Where(kind="self", layers=("mid_block", "up_blocks.0"))
JOBS = [("a cat", 0), ("a frog", 1), ("a cat and a frog", 2), ("a dog", 3)]
CALL = {
    "num_inference_steps": 2,
    "output_type": "np",
    "height": 64,
    "width": 64,
    "guidance_scale": 1.0,
}
NAME = "mid_block.attentions.0.transformer_blocks.0.attn1"


def redness(pictures, _):
    return [float(picture[..., 0].mean() - picture[..., 1:].mean()) for picture in pictures]


def search(pipe, jobs=JOBS, **options):
    return search_heads(
        pipe,
        jobs,
        options.pop("objective", redness),
        edit=SoftIdentity(),
        scale=3.0,
        where=WHERE,
        **options,
        **CALL,
    )


def test_every_image_has_heads_of_its_own():
    pipe = tiny_sd()
    latents = torch.randn(
        2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    options = {"height": 64, "width": 64}
    sets = [[(NAME, 0)], [(NAME, 1), (NAME, 3)]]
    with perturb(pipe, SoftIdentity(), scale=3.0, heads=PerImage(tuple(sets))):
        both = run("sd", pipe, ["a cat", "a frog"], latents=latents.clone(), **options)
    for i, (prompt, heads) in enumerate(zip(["a cat", "a frog"], sets, strict=True)):
        with perturb(pipe, SoftIdentity(), scale=3.0, heads=heads):
            alone = run("sd", pipe, prompt, latents=latents[i : i + 1].clone(), **options)
        torch.testing.assert_close(both[i], alone[0], rtol=0, atol=1e-9)
    with (
        pytest.raises(CouplingError, match="not for 1 images"),
        perturb(pipe, SoftIdentity(), scale=3.0, heads=PerImage(tuple(sets))),
    ):
        run("sd", pipe, "a cat", **options)


def test_batching_changes_nothing_and_the_best_are_chosen():
    pipe = tiny_sd()
    batched, single = (
        search(pipe, batch=7, rounds=2, top_k=2),
        search(pipe, batch=1, rounds=2, top_k=2),
    )
    assert batched.heads == single.heads
    assert len(set(batched.heads)) == 4
    first = batched.rounds[0]
    assert first.scores == pytest.approx(single.rounds[0].scores, abs=1e-6)
    assert list(first.chosen) == sorted(first.scores, key=lambda head: -first.scores[head])[:2]
    assert not set(first.chosen) & set(batched.rounds[1].scores)
    by_hand = []
    for prompt, seed in JOBS:
        with perturb(pipe, SoftIdentity(), scale=3.0, heads=[first.chosen[0]]):
            by_hand += redness(
                pipe(prompt, generator=torch.Generator().manual_seed(seed), **CALL).images, None
            )
    assert first.scores[first.chosen[0]] == pytest.approx(sum(by_hand) / 4, abs=1e-6)
    plain = [
        redness(pipe(p, generator=torch.Generator().manual_seed(s), **CALL).images, None)[0]
        for p, s in JOBS
    ]
    assert first.without == pytest.approx(sum(plain) / 4, abs=1e-6)
    with perturb(pipe, SoftIdentity(), scale=3.0, heads=first.chosen):
        both = redness(
            pipe(
                [p for p, _ in JOBS],
                generator=[torch.Generator().manual_seed(s) for _, s in JOBS],
                **CALL,
            ).images,
            None,
        )
    assert batched.rounds[1].without == pytest.approx(sum(both) / 4, abs=1e-6)


def test_an_interrupted_search_goes_on(tmp_path):
    pipe, cache, made = tiny_sd(), tmp_path / "scores.jsonl", []

    def counting(pictures, prompts):
        if len(made) >= 20:
            raise KeyboardInterrupt
        made.extend(prompts)
        return redness(pictures, prompts)

    with pytest.raises(KeyboardInterrupt):
        search(pipe, batch=4, cache=cache, objective=counting)
    assert len(list(read_lines(cache))) == 20
    with cache.open("a") as lines:
        lines.write('["half a li')  # as kill -9 leaves it
    made.clear()
    whole, again = search(pipe, batch=4), []

    def noting(pictures, prompts):
        again.extend(prompts)
        return redness(pictures, prompts)

    resumed = search(pipe, batch=4, cache=cache, objective=noting)
    total = sum(1 + len(each.scores) for each in whole.rounds) * len(JOBS)
    assert len(again) == total - 20
    assert resumed.rounds[0].scores == pytest.approx(whole.rounds[0].scores, abs=1e-6)
    again.clear()
    assert search(pipe, batch=4, cache=cache, objective=noting).heads == resumed.heads
    assert not again
    resumed.write(tmp_path / "heads.json")
    assert load_heads(tmp_path / "heads.json") == list(resumed.heads)
    assert {
        tuple(row[:2])
        for row in json.loads((tmp_path / "heads.json").read_text())["rounds"][0]["scores"]
    } == set(resumed.rounds[0].scores)


def test_halving_makes_fewer_pictures():
    pipe, made = tiny_sd(), []

    def noting(pictures, prompts):
        made.extend(prompts)
        return redness(pictures, prompts)

    halved = search(pipe, objective=noting, halving=True, top_k=1)
    count, jobs = len(halved.rounds[0].scores), halved.rounds[0].jobs
    left = [count, ceil(2 / 3 * count), ceil(ceil(2 / 3 * count) / 2)]
    assert (
        sorted(jobs.values())
        == [1] * (left[0] - left[1]) + [2] * (left[1] - left[2]) + [4] * left[2]
    )
    assert len(made) == sum(jobs.values()) + len(JOBS)
    assert jobs[halved.heads[0]] == 4
    exact = search(pipe, top_k=1).rounds[0]
    for head, score in halved.rounds[0].scores.items():
        assert (score == pytest.approx(exact.scores[head], abs=1e-6)) == (jobs[head] == 4)


def test_strengths_are_shifts_in_deviations_of_the_plain_pictures():
    pipe, seeds, heads = tiny_sd(), [4, 5, 6], [(NAME, 0), (NAME, 2)]
    found = strengths(pipe, "a cat", seeds, redness, heads, us=(0.0, 0.5, 1.0), batch=2, **CALL)
    assert [each.u for each in found] == [0, 0.5, 1]
    by_hand = []
    for u in (0.0, 0.5, 1.0):
        for seed in seeds:
            with perturb(pipe, SoftIdentity(u), scale=3.0, heads=heads):
                by_hand += redness(
                    pipe("a cat", generator=torch.Generator().manual_seed(seed), **CALL).images,
                    None,
                )
    scores = torch.tensor(by_hand, dtype=torch.float64).view(3, 3)
    torch.testing.assert_close(
        torch.tensor([each.scores for each in found], dtype=torch.float64),
        scores,
        rtol=0,
        atol=1e-6,
    )
    expected = (scores.mean(1) - scores[0].mean()) / scores[0].std()
    assert [each.shift for each in found] == pytest.approx(expected.tolist(), abs=1e-3)
    assert found[0].shift == 0
    assert found[2].shift != 0
    assert (found[0].pictures[1] != found[2].pictures[1]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"us": (0.5, 1.0)}, r"not u = \[0.5, 1.0\] over 2 seeds"),
        ({"seeds": [0]}, "over 1 seeds"),
        ({"objective": lambda pictures, _: [0.25] * len(pictures)}, "of all 2 seeds score 0.25"),
    ],
)
def test_strengths_need_something_to_compare_with(options, message):
    options = {"seeds": [0, 1], "objective": redness, "us": (0.0, 1.0)} | options
    with pytest.raises(ValueError, match=message):
        strengths(tiny_sd(), "a cat", heads=[(NAME, 0)], **options, **CALL)


@pytest.mark.parametrize(
    "text", ["a letter", '\n["a"]\n', '\n{"a": 1}\n', '\n["a", "b", 0, "c"]\n']
)
def test_a_file_of_others_is_no_cache(tmp_path, text):
    cache = tmp_path / "scores.jsonl"
    cache.write_text(text)
    with pytest.raises(ResultsError, match=r"scores\.jsonl holds no (results|scores)"):
        search(tiny_sd(), cache=cache)
    assert cache.read_text() == text
