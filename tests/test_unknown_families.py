"""Architectures that the package does not know: what works by shape, what is refused, and how users
describe their own."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

from attncontrol import locate, record, steer
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.sites import Site
from attncontrol.errors import ModelError
from attncontrol.families import sd3, unknown
from attncontrol.families.known import FAMILIES, family_of
from attncontrol.families.parts import one_call
from attncontrol.losses import AttendAndExcite
from tests.kit.zoo import sd3 as tiny_sd3
from tests.kit.zoo_chat import lumina_next
from tests.reference.loops import Softmax

PROMPT = "a red cat and a turtle"


def run(pipe, **options):
    call = {
        "height": 64,
        "width": 96,
        "num_inference_steps": 2,
        "output_type": "latent",
        "guidance_scale": 1.0,
    } | options
    return pipe(prompt=PROMPT, generator=torch.Generator().manual_seed(0), **call).images


@pytest.fixture
def families():
    """Families as they were, at the end."""
    family_of(tiny_sd3())
    before = list(FAMILIES)
    yield FAMILIES
    FAMILIES[:] = before


def test_cross_attention_works_by_shape(monkeypatch):
    pipe = lumina_next()
    assert family_of(pipe).name == "unknown"
    assert locate(pipe, PROMPT, "turtle").positions == (5, 6)
    softmax = Softmax(monkeypatch)
    kept = {}
    hooks = [
        layer.attn2.register_forward_hook(
            lambda *_, n=n: kept.setdefault(n, []).append(softmax.seen[-1])
        )
        for n, layer in enumerate(pipe.transformer.layers)
    ]
    plain = run(pipe)
    for hook in hooks:
        hook.remove()
    monkeypatch.undo()
    with record(pipe, ["turtle"], keep=("step", "head")) as maps:
        recorded = run(pipe)
    torch.testing.assert_close(recorded, plain)
    for n in range(2):
        expected = torch.stack(kept[n])[:, 0][..., [5, 6]].sum(-1).unflatten(-1, (4, 6)).float()
        torch.testing.assert_close(
            maps.layers[f"layers.{n}.attn2"][0, 0, ..., 0], expected, rtol=0, atol=1e-5
        )
    with steer(pipe, AttendAndExcite(["cat", "turtle"])) as trace:
        run(pipe)
    assert len(trace.steps) == 1


def test_the_halves_of_guidance_are_not_guessed(families):
    pipe = lumina_next()
    with (
        pytest.raises(ModelError, match="which half of classifier-free guidance is conditional"),
        record(pipe, ["cat"]),
    ):
        run(pipe, guidance_scale=4.0)
    mine = dataclasses.replace(
        unknown.FAMILY,
        name="mine",
        matches=lambda p: p is pipe,
        branches=lambda pipe, nth, parts: one_call(pipe, nth, parts)[::-1],
    )
    families.insert(0, mine)
    with record(pipe, ["cat"], branches=("cond", "uncond")) as maps:
        run(pipe, guidance_scale=4.0)
    with record(pipe, ["cat"], steps=[0]) as alone:
        run(pipe)
    with record(pipe, ["cat"], steps=[0]) as guided:
        run(pipe, guidance_scale=4.0)
    assert maps.branches == ("cond", "uncond")
    torch.testing.assert_close(guided["cat"], alone["cat"])


def test_text_filled_up_from_the_left_is_refused():
    pipe = lumina_next()
    pipe.tokenizer.padding_side = "left"
    with pytest.raises(ModelError, match="from the left"), record(pipe, ["cat"]):
        run(pipe)


class MyTransformer(SD3Transformer2DModel):
    """An architecture of a user."""


class MyPipeline(DiffusionPipeline):
    def __init__(self, transformer, scheduler, tokenizer, text_encoder):
        super().__init__()
        self.register_modules(
            transformer=transformer,
            scheduler=scheduler,
            tokenizer=tokenizer,
            text_encoder=text_encoder,
        )

    def encode_prompt(self, prompt, max_sequence_length=16):
        self.text_encoder(
            self.tokenizer(
                prompt, padding="max_length", max_length=max_sequence_length, return_tensors="pt"
            ).input_ids
        )
        return torch.randn(
            1,
            max_sequence_length,
            64,
            generator=torch.Generator().manual_seed(1),
            dtype=torch.float64,
        )

    @torch.no_grad()
    def __call__(self, prompt, steps=2):
        states = self.encode_prompt(prompt)
        self.scheduler.set_timesteps(steps)
        z = torch.randn(
            1, 4, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        for t in self.scheduler.timesteps:
            out = self.transformer(
                z, states, torch.zeros(1, 64, dtype=torch.float64), t.expand(1), return_dict=False
            )[0]
            z = self.scheduler.step(out, t, z, return_dict=False)[0]
        return z


class OfTwoTokenizers(MyPipeline):
    """Which of them the keys stand for is not known."""

    def __init__(self, transformer, scheduler, tokenizer, text_encoder, tokenizer_2):
        super().__init__(transformer, scheduler, tokenizer, text_encoder)
        self.register_modules(tokenizer_2=tokenizer_2)


def mine():
    source = tiny_sd3()
    transformer = source.transformer
    transformer.__class__ = MyTransformer
    return MyPipeline(
        transformer, FlowMatchEulerDiscreteScheduler(), source.tokenizer_3, source.text_encoder_3
    )


def test_joint_attention_needs_the_facts(families):
    pipe = OfTwoTokenizers(**mine().components, tokenizer_2=tiny_sd3().tokenizer)
    families.remove(sd3.FAMILY)
    with pytest.raises(ModelError) as raised, record(pipe, ["cat"]):
        pass
    for part in (
        "OfTwoTokenizers",
        "transformer=MyTransformer",
        "branches, encoders, layout",
        "FAMILIES",
    ):
        assert part in str(raised.value)


def test_joint_attention_is_found_by_trying(families):
    pipe = mine()
    plain = pipe(PROMPT)
    exec(readme_family(), {"MyTransformer": MyTransformer})
    with record(pipe, keep=("step", "head")) as described:
        pipe(PROMPT)
    families[:] = [family for family in families if family.name not in ("mine", "sd3")]
    assert family_of(pipe).name == "unknown-joint"
    with record(pipe, keep=("step", "head")) as found:
        assert torch.equal(pipe(PROMPT), plain)
    assert set(found.layers) == set(described.layers)
    for name, maps in described.layers.items():
        assert maps.shape == (1, 1, 2, 2, 4, 6, 16)
        own = found.layers[name]  # without padding
        torch.testing.assert_close(own, maps[..., : own.shape[-1]], rtol=0, atol=0)
        assert own.shape[-1] == 8
    with steer(pipe, AttendAndExcite(["cat", "turtle"])) as trace:
        assert (pipe(PROMPT) - plain).abs().max() > 1e-4
    assert len(trace.steps) == 1


def readme_family():
    text = (Path(sd3.__file__).parent / "README.md").read_text("utf-8")
    (block,) = (
        of for of in re.findall(r"```py\n(.*?)```", text, re.DOTALL) if "my_family = Family(" in of
    )
    return block


def test_the_family_of_the_readme(families):
    exec(readme_family(), {"MyTransformer": MyTransformer})
    assert families[0].name == "mine"
    pipe = mine()
    plain = pipe(PROMPT)
    with record(pipe, ["turtle"]) as maps:
        assert torch.equal(pipe(PROMPT), plain)
    with record(pipe) as every:
        pipe(PROMPT)
    assert maps["turtle"].shape == (1, 4, 6)
    torch.testing.assert_close(maps["turtle"], every.mean()[..., [5, 6]].sum(-1))
    with steer(pipe, AttendAndExcite(["cat", "turtle"])) as trace:
        assert (pipe(PROMPT) - plain).abs().max() > 1e-4
    assert len(trace.steps) == 1


def test_a_grid_that_does_not_fit_is_told():
    from attncontrol.attention.between import text_mass
    from attncontrol.attention.call import Layout

    tensor = torch.randn(1, 2, 24, 8)
    call = AttentionCall(Site("somewhere", "cross", 2, 1), tensor, tensor, tensor)
    with pytest.raises(
        ModelError,
        match="somewhere has 24 picture queries, but a grid of \\(5, 5\\) was expected",
    ):
        text_mass(call, Layout((5, 5)), [[(0,)]])
