"""``keep``: an edit with a kept source is the edit with the source in the batch."""

import functools
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
import torch

from attncontrol.attention.edit import Edit
from attncontrol.attention.sites import Where
from attncontrol.attention.source import Taken
from attncontrol.edits import (
    AddIt,
    LocalBlend,
    Move,
    MutualAttention,
    PlugAndPlay,
    Remove,
    Replace,
    Reweight,
    Share,
    StyleAligned,
)
from attncontrol.errors import CouplingError, EditError, RecordError, SizeError, WriteError
from attncontrol.maps.kept import kept
from attncontrol.maps.reading import load
from attncontrol.objectives.descent import Descent
from attncontrol.verbs.edit import edit
from attncontrol.verbs.keep import keep
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.places import On
from attncontrol.verbs.record import record
from attncontrol.verbs.steer import steer
from tests.kit.runs import run
from tests.kit.state import changes, left_behind, state
from tests.kit.zoo import flux, pixart, sd, sd3
from tests.kit.zoo_chat import qwenimage

PROMPTS = ["a red cat and a frog", "a blue cat and a frog", "a big red turtle and a frog"]
MAKE = {"sd": sd, "sd3": sd3, "flux": flux, "pixart": pixart}
TWO = {"true_cfg_scale": 3.0, "negative_prompt": ""}
GUIDED = {"sd": {}, "sd3": {}, "flux": TWO, "pixart": {}}
OFF = {"sd": {"guidance_scale": 1.0}, "sd3": {"guidance_scale": 1.0}, "flux": {},
       "pixart": {"guidance_scale": 1.0}}  # fmt: skip
LATE = Where(layers=("up_blocks", "transformer_blocks.1", "single_transformer_blocks"))


@dataclass(frozen=True)
class Features(Edit):
    """The output of a block, and all of the attention of the source."""

    source: object = 0
    where = Where(kind=("self", "joint"))
    modules = ("*_block*.resnets.0",)

    def takes(self, call, now):  # noqa: ARG002
        return Taken("all")

    def __call__(self, call, now):
        return now.source(call, self.source, *self.takes(call, now))

    def passed(self, name, inputs, output, now):  # noqa: ARG002
        return now.output_of(self.source, name, output)


class Blocks(Features):
    """The same of a transformer, whose blocks give text and picture."""

    modules = ("transformer_blocks.1",)


EDITS = {
    "replace": Replace(cross=0.7, among=0.7, joint=0.7, words={"frog": 0.4}),
    "refine": Replace(cross=1.0, swapped=False),
    "mutual": MutualAttention(start=0.3),
    "style": StyleAligned(shift=0.5),
    "share": Share(("query", "value"), start=0.2, stop=0.7, outside=(0.0, 0.0, 0.5, 1.0)),
    "blend": LocalBlend(start=0.4, threshold=0.97),
    "features": Features(),
    "masactrl": MutualAttention(start=0.0, words=["frog"], threshold=0.5),
    "union": MutualAttention(start=0.3, union=True),
    "remove": Remove((0.0, 0.0, 0.5, 1.0), grow=0.0),
    "move": Move((0.0, 0.0, 0.5, 1.0), by=(0.25, 0.0)),
    "add": AddIt("frog", gamma="auto", structure=0.4, blend=0.5),
    "pnp": PlugAndPlay(),
}
ALONE_IN = {"refine": ("sd",), "pnp": ("sd",), "add": ("sd3", "flux"), "union": ("flux",),
            "remove": ("sd", "flux"), "move": ("flux",)}  # fmt: skip
ALL = [(of, name, True) for of in EDITS for name in ALONE_IN.get(of, ("sd", "sd3", "flux"))]
ALONE = [(of, name, False) for of in ("replace", "mutual", "blend") for name in ("sd3", "flux")]


@functools.cache
def pipe_of(name):
    return MAKE[name]()


def made(name, images, contexts=(), *, steps=3, **call):
    if isinstance(call.get("negative_prompt"), str):
        call["negative_prompt"] = [call["negative_prompt"]] * len(images)
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        prompts = [PROMPTS[image] for image in images]
        return run(name, pipe_of(name), prompts, seed=[5] * len(images), steps=steps, **call)


@functools.cache
def plain(name, guided):
    return made(name, (0, 1, 2), **(GUIDED if guided else OFF)[name])


def keeping(name, what, images=(0,), others=(), *, where=None, to=None, **call):
    with keep(pipe_of(name), what, where=where, to=to) as source:
        pictures = made(name, images, others, **call)
    return source, pictures


def close(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("of", "name", "guided"), [*ALL, *ALONE, ("replace", "sd", False)])
def test_a_kept_source_is_the_source_in_the_batch(of, name, guided):
    what, pipe = EDITS[of], pipe_of(name)
    what = Blocks() if of == "features" and name != "sd" else what
    where = None
    if of == "blend":
        where = Where(kind=("cross", "joint"), stride=1 if name == "sd" else 2)
    call = (GUIDED if guided else OFF)[name]
    whole = made(name, (0, 1, 2), [edit(pipe, what, where=where)], **call)
    assert (whole[1:] - plain(name, guided)[1:]).flatten(1).abs().amax(1).min() > 1e-4
    source, alone = keeping(name, what, where=where, **call)
    close(alone, whole[:1])
    again = replace(what, source=source)
    close(made(name, (1, 2), [edit(pipe, again, where=where)], **call), whole[1:])


def test_masks_of_the_text_come_along():
    pipe = pipe_of("pixart")
    whole = made("pixart", (0, 2), [edit(pipe, Replace(cross=1.0))])
    source, _ = keeping("pixart", Replace(cross=1.0))
    close(made("pixart", (2,), [edit(pipe, Replace(source, cross=1.0))]), whole[1:])


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_the_kept_pass_is_bit_identical_and_serves_any_number_of_images(name):
    pipe, what = pipe_of(name), MutualAttention(start=0.0)
    source, pictures = keeping(name, what, (0, 2))
    assert torch.equal(pictures, made(name, (0, 2)))
    whole = made(name, (0, 2, 1, 1), [edit(pipe, replace(what, source=(0, 1, 1, 0)))])
    both = made(name, (1, 1), [edit(pipe, replace(what, source=source[1, 0]))])
    close(both, whole[2:])
    close(made(name, (1, 1), [edit(pipe, replace(what, source=source[1]))])[1], whole[2])
    with pytest.raises(IndexError, match="no image 2 among the 2"):
        source[2]
    with pytest.raises(CouplingError, match=r"has 2 images, but the pipeline makes 3: name one"):
        made(name, (1, 1, 1), [edit(pipe, replace(what, source=source))])


def test_several_edits_are_kept_together_and_used_together_in_any_context():
    pipe, first = pipe_of("sd"), Where(kind="self", layers=("up_blocks",))
    places = Where(kind="cross", stride=1)
    of = [Replace(), On(LocalBlend(threshold=0.97), places), On(MutualAttention(start=0.0), first)]

    def contexts(source):
        edits = [replace(on.edit if isinstance(on, On) else on, source=source) for on in of]
        return [
            edit(pipe, [On(edits[0]), On(edits[1], places)]), edit(pipe, edits[2], where=first),
            edit(pipe, Reweight({"frog": 2.0})),
        ]  # fmt: skip

    maps = record(pipe, ["frog"]), record(pipe, ["frog"])
    with maps[0] as before:
        whole = made("sd", (0, 1), contexts(0))
    source, _ = keeping("sd", of, (0,), [edit(pipe, Reweight({"frog": 2.0}))])
    with maps[1] as after:
        close(made("sd", (1,), contexts(source)), whole[1:])
    torch.testing.assert_close(after["frog"], before["frog"][1:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_steering_has_no_gradient_into_the_source(name):
    """The source is left as it is by a loss that does not look at it."""
    pipe, what = pipe_of(name), StyleAligned()

    def objective(maps):
        losses = maps.mean()[..., 1:4].square().flatten(1).sum(1)
        return losses if len(losses) == 1 else losses * torch.tensor([0.0, 1.0])

    def steered():
        return steer(pipe, objective, descent=Descent(step_size=5.0, thresholds={}, guided=1.0))

    whole = made(name, (0, 1), [edit(pipe, what), steered()])
    source, _ = keeping(name, what)
    moved = made(name, (1,), [edit(pipe, replace(what, source=source)), steered()])
    close(moved, whole[1:])
    assert (moved - made(name, (1,), [edit(pipe, replace(what, source=source))])).abs().max() > 1e-4
    assert not any(tensor.requires_grad for tensor in source.tensors.values())


def test_heads_of_their_own_and_perturb_take_from_a_kept_source():
    pipe, what, site = pipe_of("sd"), MutualAttention(start=0.0), "mid_block.attentions.0"
    heads = [(f"{site}.transformer_blocks.0.attn1", 1)]
    source, _ = keeping("sd", what)
    again = replace(what, source=source)
    whole = made("sd", (0, 1), [edit(pipe, what, heads=heads)])
    close(made("sd", (1,), [edit(pipe, again, heads=heads)]), whole[1:])
    first = Where(kind="self", layers=("down_blocks.0",))
    whole = made("sd", (0, 1), [perturb(pipe, what, scale=2.0, where=first)], steps=3)
    close(made("sd", (1,), [perturb(pipe, again, scale=2.0, where=first)]), whole[1:])
    source, _ = keeping("sd", LocalBlend())
    words = [("mid_block.attentions.0.transformer_blocks.0.attn2", 0)]
    with pytest.raises(EditError, match=r"mean over all is known: leave heads=\.\.\. out"):
        made("sd", (1,), [edit(pipe, LocalBlend(source=source), heads=words)])


def test_inference_mode_keeps_tensors_that_gradients_can_flow_beside():
    pipe = pipe_of("flux")
    with torch.inference_mode():
        source, _ = keeping("flux", MutualAttention(start=0.0))
    assert not any(tensor.is_inference() for tensor in source.tensors.values())
    made("flux", (1,), [
        edit(pipe, MutualAttention(source, start=0.0), where=LATE),
        steer(pipe, lambda maps: maps.mean()[..., 1].flatten(1).mean(1)),
    ], steps=3)  # fmt: skip


def test_saved_and_loaded_it_is_the_same_to_the_bit(tmp_path):
    pipe, what = pipe_of("sd"), [Replace(), On(LocalBlend(), Where(kind="cross", stride=1))]
    source, _ = keeping("sd", what)
    streamed, _ = keeping("sd", what, to=tmp_path / "folder")
    files = sorted(file.name for file in (tmp_path / "folder").iterdir())
    assert files == ["pass.safetensors", *(f"step-{k:04}.safetensors" for k in range(3))]
    source.save(tmp_path / "one.safetensors")
    streamed.save(tmp_path / "two.safetensors")
    opened = [kept(tmp_path / name) for name in ("folder", "one.safetensors", "two.safetensors")]
    for other in (streamed, *opened):
        assert other.facts == source.facts
        assert set(other.tensors) == set(source.tensors)
        assert all(torch.equal(other.tensors[name], of) for name, of in source.tensors.items())
    expected, again = (
        made("sd", (1,), [edit(pipe, [
            On(Replace(of)), On(LocalBlend(source=of), Where(kind="cross", stride=1)),
        ])])
        for of in (source, opened[1])
    )  # fmt: skip
    assert torch.equal(again, expected)
    with pytest.raises(WriteError, match="written over the input"):
        opened[1].save(tmp_path / "one.safetensors")


def test_files_that_are_damaged_foreign_or_missing_are_refused(tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "one.safetensors"
    source, _ = keeping("sd", Replace(), to=folder)
    source.save(file)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    pipe, broken = pipe_of("sd"), kept(file)
    with pytest.raises(RecordError, match="is damaged: the checksum of"):
        [broken.tensors[name] for name in broken.tensors]
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(RecordError, match="is not a kept pass"):
        kept(file)
    with pytest.raises(RecordError, match="no such file"):
        kept(tmp_path / "nowhere")
    keeping("sd", Replace(), to=tmp_path / "other")
    (folder / "step-0001.safetensors").unlink()
    with pytest.raises(RecordError, match=r"it has the steps \[0, 2\] of 3"):
        kept(folder)
    (folder / "step-0001.safetensors").write_bytes(
        (tmp_path / "other" / "step-0001.safetensors").read_bytes()
    )
    with pytest.raises(RecordError, match="does not hold the files of one pass"):
        kept(folder)
    with record(pipe, ["cat"], to=tmp_path / "maps"):
        made("sd", (0,), steps=1)
    with pytest.raises(WriteError, match="was not made by this command"):
        keep(pipe, Replace(), to=tmp_path / "maps").__enter__()


def test_what_is_stopped_leaves_nothing_and_is_no_source(tmp_path):
    pipe = pipe_of("sd")
    before = state(pipe)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), keep(pipe, Replace(), to=tmp_path / "new") as source:
        made("sd", (0,), callback_on_step_end=stop)
    assert not list(tmp_path.iterdir())
    assert not changes(before, state(pipe))
    assert not left_behind(pipe)
    assert repr(source) == "KeptPass(not finished)"
    with pytest.raises(CouplingError, match="was not kept to the end"):
        edit(pipe, Replace(source)).__enter__()
    assert not left_behind(pipe)

    def interrupt(of, *_):
        of._interrupt = True
        return {}

    with pytest.raises(CouplingError, match="stopped after 1 of 3 steps"):
        keeping("sd", Replace(), callback_on_step_end=interrupt)
    with pytest.raises(CouplingError, match="one pipeline call"), keep(pipe, Replace()):
        made("sd", (0,), steps=1)
        made("sd", (0,), steps=1)


REFUSED = {
    "steps": ({"steps": 2}, "the source was kept with 3 steps, this run has 2 steps"),
    "size": ({"height": 32}, "kept with a picture of 8 x 12 cells, this run has a picture of 4 x"),
    "branches": (
        {"guidance_scale": 3.0},
        "takes from the branch 'uncond', but the source was kept",
    ),
    "model": (None, "kept from StableDiffusionPipeline with UNet2DConditionModel, "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_kind_of_run_is_refused_before_anything_is_computed(case):
    call, message = REFUSED[case]
    source, _ = keeping("sd", MutualAttention(), guidance_scale=1.0)
    name = "sd" if call else "sd3"
    pipe, steps = pipe_of(name), []
    call = {"guidance_scale": 1.0, "callback_on_step_end": lambda *of: steps.append(of)} | (
        call or {}
    )
    with pytest.raises(CouplingError) as error:
        made(name, (1,), [edit(pipe, MutualAttention(source))], **call)
    assert message in str(error.value)
    assert not steps


def test_an_edit_that_needs_what_was_not_kept_is_refused_by_name_in_the_first_step():
    pipe, steps = pipe_of("sd"), []
    source, _ = keeping("sd", Replace(cross=0.4, among=0.4))
    for what, message in (
        (
            Replace(source, cross=1.0),
            "takes the (query|key) of step 1 at .*attn2, which the source",
        ),
        (MutualAttention(source, start=0.5), "takes the key of step 1 at .*attn1"),
        (LocalBlend(source=source), "takes the maps of step 0 at .*attn2"),
    ):
        with pytest.raises(CouplingError, match=message):
            made("sd", (1,), [edit(pipe, what)], callback_on_step_end=lambda *of: steps.append(of))
    assert not steps


def test_what_cannot_be_kept_is_refused():
    pipe = pipe_of("sd")
    for what in (Reweight({"cat": 2.0}), [On(Replace()), Reweight({"cat": 2.0})], lambda c, _: c):
        with pytest.raises(EditError, match="takes nothing from a source"):
            keep(pipe, what).__enter__()
    with pytest.raises(EditError, match="holds no edit"):
        keep(pipe, []).__enter__()
    with pytest.raises(CouplingError, match="nothing was kept"):
        keeping("sd", Replace(cross=0.0, among=0.0))
    steps = []
    with pytest.raises(SizeError, match=r"hold more than .* GiB, limit"), \
            keep(pipe, [Replace(), LocalBlend()], limit=1e4):  # fmt: skip
        made("sd", (0,), callback_on_step_end=lambda *of: steps.append(of))
    assert not steps
    assert not left_behind(pipe)


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_the_estimate_is_what_is_kept(name):
    """A limit of as many bytes holds, one byte less is refused in the first step."""
    what = [Replace(joint=0.7), LocalBlend(), Share(stop=0.4)]
    source, _ = keeping(name, what, output_type="pt")
    size, steps = float(source.nbytes), []
    with keep(pipe_of(name), what, limit=size):
        made(name, (0,), output_type="pt")
    with pytest.raises(SizeError), keep(pipe_of(name), what, limit=size - 1):
        made(name, (0,), output_type="pt", callback_on_step_end=lambda *of: steps.append(of))
    assert not steps


def test_pictures_of_an_autoencoder_of_videos_are_counted():
    """Its configuration names the channels of latents ``z_dim``."""
    pipe = qwenimage()
    with keep(pipe, LocalBlend()) as source:
        run("qwenimage", pipe, "a red cat", output_type="pt")
    size = float(source.nbytes)
    with keep(pipe, LocalBlend(), limit=size):
        run("qwenimage", pipe, "a red cat", output_type="pt")
    with pytest.raises(SizeError), keep(pipe, LocalBlend(), limit=size - 1):
        run("qwenimage", pipe, "a red cat", output_type="pt")


def test_what_is_no_kept_pass_is_told_as_what_it_is(tmp_path):
    text = tmp_path / "notes.json"
    text.write_text('{"a": 1}')
    none = "it is no file of safetensors, or not all of one; write one with keep"
    with pytest.raises(RecordError, match=rf"notes\.json is not a kept pass: {none}"):
        kept(text)
    with pytest.raises(RecordError, match=r"notes\.json is not an attention record: it is no file"):
        load(text)
    told = "is a folder that holds no kept pass; give one that keep"
    with pytest.raises(RecordError, match=rf"{tmp_path.name} {told}") as error:
        kept(tmp_path)
    assert "notes" not in str(error.value).replace(str(tmp_path), "")


def test_a_source_with_guidance_in_a_run_without_is_told_once():
    call = {"num_inference_steps": 2, "output_type": "latent"}
    pipe = pipe_of("sd")
    with keep(pipe, Replace()) as source:
        pipe(PROMPTS[0], guidance_scale=2.0, **call)
    told = "the source was kept with guidance, this run has none: its 'uncond' branch was not used"
    with pytest.warns(UserWarning, match=told) as warned, edit(pipe, Replace(source=source)):
        pipe(PROMPTS[1], guidance_scale=1.0, **call)
    assert len(warned) == 1
    with warnings.catch_warnings(), edit(pipe, Replace(source=source)):
        warnings.simplefilter("error")
        pipe(PROMPTS[1], guidance_scale=3.0, **call)
