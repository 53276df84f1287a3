"""LocalBlend: whole runs against loops, and which words it finds."""

import pytest
import torch

from attncontrol.attention.sites import Where
from attncontrol.edits import LocalBlend, Replace
from attncontrol.errors import WordError
from attncontrol.running.session import attach
from attncontrol.verbs.edit import edit
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
    ("name", "threshold"),
    [("sd", 0.9), ("sd3", 0.9), ("sd3", 0.97), ("flux", 0.9), ("flux", 0.97), ("pixart", 0.9)],
)
def test_blended_latents_equal_written_out_loops(name, threshold):
    make, branches, size, call = CASES[name]
    pipe = make()
    words = {
        1: [positions(pipe, name, prompt, "red cat" if p == 0 else "blue cat")
            for p, prompt in enumerate(PROMPTS[:2])],
        2: [positions(pipe, name, PROMPTS[0], "frog"), []],
    }  # fmt: skip
    places = Where(kind=("cross", "joint"), stride=1 if name == "sd" else 2)
    names = {site.name for site in places.select(attach(pipe).sites.values())}
    oracle = slow.LocalBlended(words, names, 2, threshold, size)
    with slow.written_out(
        pipe, oracle, images=3, total=TOTAL, branches=branches,
        grids={96: (8, 12), 24: (4, 6), 6: (2, 3)},
        texts={"sd3": CLIP + 16, "flux": 16}.get(name, 0), picture_first=name != "flux",
    ), stepped(pipe.scheduler, oracle.after):  # fmt: skip
        expected = run(name, pipe, PROMPTS, steps=TOTAL, **call)
    plain = run(name, pipe, PROMPTS, steps=TOTAL, **call)
    with edit(pipe, LocalBlend(start=0.5, threshold=threshold), where=places):
        blended = run(name, pipe, PROMPTS, steps=TOTAL, **call)
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
