"""What the core gives to edits: sources, notes, latents, modules and further texts."""

from dataclasses import dataclass

import pytest
import torch

from attncontrol.attention.edit import Edit
from attncontrol.attention.sites import TEXT, Where
from attncontrol.edits import MutualAttention, Replace, StyleAligned
from attncontrol.errors import CouplingError, EditError, ModelError, SettingError, SiteError
from attncontrol.verbs.edit import edit
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.record import record
from tests.kit.runs import run
from tests.kit.zoo import auraflow, flux, pixart, sd, sd3

PROMPTS = ["a red cat and a frog", "a blue cat and a frog", "a red dog", "a red turtle"]
MAKE = {"sd": sd, "sd3": sd3, "flux": flux, "pixart": pixart}
GUIDED = {"guidance_scale": 3.0}


@pytest.mark.parametrize("name", ["sd", "flux"])
@pytest.mark.parametrize("cls", [Replace, MutualAttention, StyleAligned])
def test_a_source_for_every_image_is_a_run_for_every_source(name, cls):
    pipe = MAKE[name]()
    with edit(pipe, cls(source=(0, 0, 2, 2))):
        both = run(name, pipe, PROMPTS, seed=[5, 5, 6, 6])
    for pair, seed in ((slice(2), 5), (slice(2, 4), 6)):
        with edit(pipe, cls()):
            one = run(name, pipe, PROMPTS[pair], seed=[seed, seed])
        torch.testing.assert_close(both[pair], one, rtol=0, atol=1e-9)


def test_a_source_has_none_itself_and_there_is_one_for_every_image():
    with pytest.raises(SettingError, match="has its own number"):
        Replace(source=(0, 0, 1))
    pipe = sd()
    with pytest.raises(CouplingError, match="source has 2 numbers"), edit(pipe, Replace((0, 0))):
        run("sd", pipe, PROMPTS[:3])


@dataclass(frozen=True)
class Counting(Edit):
    """Shifts the latents of the last image by a number that grows with the steps."""

    where = Where(kind=("self", "joint"))

    def __call__(self, call, now):
        notes = now.notes(self)
        notes["calls"] = notes.get("calls", 0) + (
            now.purpose == "own" and now.branches[-1] == "cond"
        )
        return call

    def stepped(self, latents, now):
        notes = now.notes(self)
        notes["steps"] = notes.get("steps", 0) + 1
        assert notes["calls"] % notes["steps"] == 0
        assert latents.numel() % torch.Size(now.layout.grid).numel() == 0
        shift = torch.zeros_like(latents)
        shift[-1] = notes["steps"] / 100
        return latents + shift


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_latents_after_a_step_are_those_of_the_edit_and_notes_live_for_one_run(name):
    pipe, steps = MAKE[name](), []

    def by_hand(_, index, __, kwargs):
        steps.append(index)
        kwargs["latents"][-1] += (index + 1) / 100
        return kwargs

    expected = run(name, pipe, PROMPTS[:2], callback_on_step_end=by_hand)
    for _ in range(2):  # notes begin anew
        with edit(pipe, Counting()):
            torch.testing.assert_close(run(name, pipe, PROMPTS[:2]), expected, rtol=0, atol=1e-12)
    assert "step" not in vars(pipe.scheduler)


@dataclass(frozen=True)
class Halving(Edit):
    """Halves the output of the first convolution."""

    where = TEXT
    modules = ("conv_in",)

    def __call__(self, call, now):  # noqa: ARG002
        return call

    def passed(self, name, inputs, output, now):
        assert (name, list(inputs)) == ("conv_in", ["input"])
        assert len(output) == len(now.branches) * len(now.images)
        return output / 2


def test_outputs_of_other_modules_are_those_of_the_edit_and_come_back():
    pipe = sd()
    plain = run("sd", pipe, PROMPTS[:2], **GUIDED)
    with edit(pipe, Halving()):
        halved = run("sd", pipe, PROMPTS[:2], **GUIDED)
    assert torch.equal(run("sd", pipe, PROMPTS[:2], **GUIDED), plain)
    with torch.no_grad():
        pipe.unet.conv_in.weight /= 2
        pipe.unet.conv_in.bias /= 2
    torch.testing.assert_close(run("sd", pipe, PROMPTS[:2], **GUIDED), halved, rtol=0, atol=1e-12)


def test_an_edit_of_a_module_that_does_not_exist_is_refused():
    pipe = flux()
    with pytest.raises(SiteError, match="no module of FluxTransformer2DModel is 'conv_in'"):
        edit(pipe, Halving()).__enter__()


@dataclass(frozen=True)
class Also(Edit):
    """Picture cells of the last image look at a further text too, alone in cross-attention."""

    texts: tuple[str, ...] = ("a green frog",)
    hidden: bool = False
    where = TEXT

    def __call__(self, call, now):
        last = now.rows("cond").stop - 1
        if self.hidden:
            return call
        if call.site.kind == "cross":
            ((key, value),) = call.further.values()
            output = call.run()
            output[last] = call.replace(key=key, value=value, mask=None).kernel()[last]
            return output
        (place,) = now.layout.further.values()
        assert not set(range(call.query.shape[2])[place]) & set(range(1000)[now.layout.text])
        assert not call.mask[..., place].any()
        mask = call.mask.expand(len(call.query), 1, call.query.shape[2], -1).clone()
        mask[last, :, now.layout.image_slice, place] = True
        mask[last, :, place, place] = True
        return call.replace(mask=mask)

    def acts(self, progress):
        return progress < 1


@pytest.mark.parametrize("name", MAKE)
def test_further_texts_change_nothing_where_nobody_looks_at_them(name):
    pipe = MAKE[name]()
    call = GUIDED if name != "flux" else {"true_cfg_scale": 3.0, "negative_prompt": [""] * 2}
    plain = run(name, pipe, PROMPTS[:2], **call)
    with edit(pipe, Also(hidden=True)), record(pipe, ["cat"]) as hidden:
        none = run(name, pipe, PROMPTS[:2], **call)
    torch.testing.assert_close(none, plain, rtol=0, atol=1e-9)
    with record(pipe, ["cat"]) as before:
        run(name, pipe, PROMPTS[:2], **call)
    torch.testing.assert_close(hidden["cat"], before["cat"], rtol=0, atol=1e-6)
    with edit(pipe, Also()):
        seen = run(name, pipe, PROMPTS[:2], **call)
    torch.testing.assert_close(seen[0], plain[0], rtol=0, atol=1e-9)
    assert (seen[1] - plain[1]).abs().max() > 1e-4


def test_further_texts_are_hidden_where_their_edit_does_not_act():
    pipe, one = flux(), Where(kind="joint", layers=("transformer_blocks.1",))
    plain, lengths = run("flux", pipe, PROMPTS[:2], steps=3), []

    def look(call, now):  # noqa: ARG001
        lengths.append(call.key.shape[2])
        return call

    with edit(pipe, Also(hidden=True), where=one), edit(pipe, look, where=one):
        none = run("flux", pipe, PROMPTS[:2], steps=3)
    torch.testing.assert_close(none, plain, rtol=0, atol=1e-9)
    assert lengths[0] == lengths[1] > lengths[2]  # in the last step it does not act
    with edit(pipe, Also(), where=one), record(pipe, ["cat"]) as seen:
        run("flux", pipe, PROMPTS[:2], steps=1)
    with record(pipe, ["cat"]) as before:
        run("flux", pipe, PROMPTS[:2], steps=1)
    torch.testing.assert_close(seen["cat"][0], before["cat"][0], rtol=0, atol=1e-6)


def test_a_further_text_is_what_the_encoders_make_of_it():
    pipe, found = sd(), []

    def look(call, now):
        found.append(call.further["a green frog"][0][now.rows("cond")][-1])
        return call

    with edit(pipe, Also(hidden=True)), edit(pipe, look, where=TEXT):
        run("sd", pipe, PROMPTS[:2], steps=1)
    own, found = found, []

    def again(call, now):
        found.append(call.key[now.rows("cond")][-1])
        return call

    with edit(pipe, again, where=TEXT):
        run("sd", pipe, [PROMPTS[0], "a green frog"], steps=1)
    torch.testing.assert_close(own[0], found[0], rtol=0, atol=1e-9)


def test_models_that_cannot_read_more_are_refused_and_so_is_a_weakened_pass():
    pipe = auraflow()
    with pytest.raises(ModelError, match="cannot read further texts"):
        edit(pipe, Also()).__enter__()
    for what in (Also(), Counting(), Halving()):
        with pytest.raises(EditError, match="changes more than attention"):
            perturb(sd(), what, scale=1.0).__enter__()
