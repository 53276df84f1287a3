"""LocalBlend: whole runs against loops, and which words it finds."""

import functools

import pytest
import torch

from attncontrol.attention.sites import Where
from attncontrol.edits import LocalBlend, Replace
from attncontrol.edits._maps import strong
from attncontrol.errors import WordError
from attncontrol.running.session import attach
from attncontrol.verbs.edit import edit
from attncontrol.verbs.keep import keep
from attncontrol.verbs.places import On
from tests.kit.runs import run, stepped
from tests.kit.zoo import flux, pixart, sd, sd3
from tests.reference import editing as slow

PROMPTS = ["a red cat and a frog", "a blue cat and a frog", "a red cat"]
TOTAL = 4
CLIP = 32
# guided or not: the model, branches by call of the denoiser, cells of the latents, the call
CASES = {
    "sd": (sd, (("uncond", "cond"),), (8, 12), {"guidance_scale": 3.0}),
    "sd3": (sd3, (("cond",),), (8, 12), {"guidance_scale": 1.0}),
    "flux": (
        flux, (("cond",), ("uncond",)), (4, 6),
        {"true_cfg_scale": 3.0, "negative_prompt": [""] * 3},
    ),
    "pixart": (pixart, (("uncond", "cond"),), (8, 12), {"guidance_scale": 3.0}),
}  # fmt: skip


def positions(pipe, name, prompt, word):
    if name == "sd3":
        first = slow.positions(pipe.tokenizer, prompt, word)
        return first + slow.positions(pipe.tokenizer_3, prompt, word, CLIP)
    return slow.positions(pipe.tokenizer_2 if name == "flux" else pipe.tokenizer, prompt, word)


@pytest.mark.parametrize(
    ("name", "threshold", "thing"),
    [("sd", 0.9, "cat"), ("sd3", 0.9, "cat"), ("sd3", 0.97, "cat"), ("flux", 0.9, "cat"),
     ("flux", 0.97, "cat"), ("pixart", 0.9, "cat"), ("sd3", 0.97, "dog"), ("sd", 0.97, "dog")],
)  # fmt: skip
def test_blended_latents_equal_written_out_loops(name, threshold, thing):
    make, branches, size, call = CASES[name]
    pipe, prompts = make(), [PROMPTS[0], f"a blue {thing} and a frog", PROMPTS[2]]
    words = {
        1: [positions(pipe, name, prompts[0], "red cat"),
            positions(pipe, name, prompts[1], f"blue {thing}")],
        2: [positions(pipe, name, prompts[0], "frog"), []],
    }  # fmt: skip
    rest = {1: "frog", 2: "red cat"}
    without = {image: positions(pipe, name, PROMPTS[0], word) for image, word in rest.items()}
    places = Where(kind=("cross", "joint"), stride=1 if name == "sd" else 2)
    names = {site.name for site in places.select(attach(pipe).sites.values())}
    oracle = slow.LocalBlended(
        words, without, names, 2, threshold, 0.8, size, {1} if thing == "dog" else ()
    )
    with slow.written_out(
        pipe, oracle, images=3, total=TOTAL, branches=branches,
        grids={96: (8, 12), 24: (4, 6), 6: (2, 3)},
        texts={"sd3": CLIP + 16, "flux": 16}.get(name, 0), picture_first=name != "flux",
    ), stepped(pipe.scheduler, oracle.after):  # fmt: skip
        expected = run(name, pipe, prompts, steps=TOTAL, **call)
    plain = run(name, pipe, prompts, steps=TOTAL, **call)
    with edit(pipe, LocalBlend(start=0.5, threshold=threshold, held=0.8), where=places):
        blended = run(name, pipe, prompts, steps=TOTAL, **call)
    torch.testing.assert_close(blended, expected, rtol=0, atol=1e-10)
    assert torch.equal(blended[0], plain[0])
    shares = [(one == plain[0]).double().mean() for one in blended[1:]]
    assert all(0.05 < share < 1 for share in shares)


def test_words_are_those_of_either_prompt():
    pipe = sd()
    with edit(pipe, LocalBlend()):
        found = run("sd", pipe, PROMPTS[:2])
    for words in (("red cat", "blue cat"), ("red", "cat", "blue")):
        with edit(pipe, LocalBlend(words)):
            assert torch.equal(run("sd", pipe, PROMPTS[:2]), found)
    missing = "'dog' is not in the prompt 'a blue cat and a frog'"
    with pytest.raises(WordError, match=missing), edit(pipe, LocalBlend(("cat", "dog"))):
        run("sd", pipe, PROMPTS[:2])


def test_it_stands_before_edits_that_give_an_output():
    pipe = sd()
    with edit(pipe, [On(LocalBlend()), On(Replace())]):
        listed = run("sd", pipe, PROMPTS, steps=3)
    with edit(pipe, LocalBlend()), edit(pipe, Replace()):
        nested = run("sd", pipe, PROMPTS, steps=3)
    assert torch.equal(listed, nested)


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_pictures_are_the_source_beyond_what_changes(name, monkeypatch):
    make, _, (height, width), call = CASES[name]
    pipe, decoded = make(), []
    places = Where(kind=("cross", "joint"), stride=1 if name == "sd" else 2)
    finish = pipe.image_processor.postprocess
    monkeypatch.setattr(
        pipe.image_processor, "postprocess", lambda x, **kw: decoded.append(x) or finish(x, **kw)
    )
    blend = functools.partial(LocalBlend, ("blue",), start=0.5, threshold=0.97)

    def made(images, **more):
        prompts = [PROMPTS[image] for image in images]
        few = {k: v[: len(images)] if isinstance(v, list) else v for k, v in call.items()}
        return run(name, pipe, prompts, steps=TOTAL, seed=[3] * len(images), **few, **more)

    with keep(pipe, blend(), where=places) as kept:
        made([0], output_type="pt")
    with edit(pipe, blend(pixels=False), where=places):
        latents = made([0, 1])
        made([0, 1], output_type="pt")
    with edit(pipe, blend(), where=places):
        made([0, 1], output_type="pt")
    with edit(pipe, blend(source=kept), where=places):
        made([1], output_type="pt")
    alone, (source, own), (same, blended), (of_kept,) = (x for x in decoded if x.shape[1] == 3)
    differs = (latents[1] != latents[0]).any(-1 if name == "flux" else 0).view(height, width)
    share = slow.faded(differs, *own.shape[-2:])
    assert 0.05 < (share == 0).double().mean() < 0.9
    torch.testing.assert_close(blended, source + share * (own - source), rtol=0, atol=1e-10)
    torch.testing.assert_close(of_kept, blended, rtol=0, atol=1e-9)
    assert torch.equal(same, source)
    torch.testing.assert_close(alone[0], source, rtol=0, atol=1e-9)
    assert not hasattr(vars(pipe.vae).get("decode"), "observers")


def test_words_that_stay_can_be_said():
    pipe = sd()
    made = []
    for without in (None, ("frog",), (), ("cat",)):
        with edit(pipe, LocalBlend(("blue", "cat"), without=without, start=0.9, held=0.97)):
            made.append(run("sd", pipe, PROMPTS[:2], steps=3))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    missing = "'dog' is not in the prompt"
    with pytest.raises(WordError, match=missing), edit(pipe, LocalBlend(without=("dog",))):
        run("sd", pipe, PROMPTS[:2])


@pytest.mark.parametrize("size", [(8, 12), (16, 24), (40, 33)])
def test_what_is_strong_reaches_a_sixteenth_of_the_picture(size):
    maps = torch.rand(2, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.tensor([slow.widest(cells) for cells in maps], dtype=torch.float64)
    for share in (0.5, 0.9, 0.99):
        found = strong(maps, share)
        assert torch.equal(found, expected > share * expected.amax((1, 2), keepdim=True))
        assert 0 < found.double().mean() < 1 or share == 0.5
