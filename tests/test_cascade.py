"""Stable Cascade: the prior reads the words; the combined pipeline runs it inside its own call."""

import pytest
import torch
from diffusers import StableCascadeCombinedPipeline, StableCascadeUNet
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from diffusers.schedulers import DDPMWuerstchenScheduler

from attncontrol import edit, record
from attncontrol.attention.sites import Where
from attncontrol.edits import KeyMask
from attncontrol.errors import ModelError
from attncontrol.families import family_of
from attncontrol.running.session import Hooks, attach
from tests.kit.zoo import finish
from tests.kit.zoo_unets import cascade
from tests.reference.loops import Softmax

SIZE = {"height": 64, "width": 96}


@pytest.fixture(scope="module")
def combined():
    prior = cascade()
    torch.manual_seed(1)
    decoder = StableCascadeUNet(
        in_channels=4, out_channels=4, conditioning_dim=16, patch_size=2, effnet_in_channels=4,
        block_out_channels=(8, 16), num_attention_heads=(-1, 2), down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1), clip_text_pooled_in_channels=32,
        block_types_per_layer=(("SDCascadeResBlock", "SDCascadeTimestepBlock"),
                               ("SDCascadeResBlock", "SDCascadeAttnBlock")),
        timestep_ratio_embedding_dim=8, timestep_conditioning_type=("sca",),
        self_attn=(True, False),
    )  # fmt: skip
    codes = PaellaVQModel(num_vq_embeddings=8, bottleneck_blocks=1, embed_dim=8, latent_channels=4)
    pipe = StableCascadeCombinedPipeline(
        prior.tokenizer, prior.text_encoder, decoder, DDPMWuerstchenScheduler(), codes,
        prior.prior, prior.text_encoder, prior.tokenizer, prior.scheduler,
    )  # fmt: skip
    pipe.prior_pipe.register_to_config(resolution_multiple=16)
    return finish(pipe, ())


def run(pipe, prompt, **options):
    generator = torch.Generator().manual_seed(0)
    return pipe(prompt, generator=generator, output_type="pt", **SIZE, **options)[0]


def test_the_combined_pipeline_names_its_prior_which_is_recorded_inside_its_call(combined):
    refused = pytest.raises(ModelError, match=r"give pipe\.prior_pipe, which reads the words")
    with refused, record(combined, ["cat"]):
        pass
    with pytest.raises(ModelError, match="no words: give the pipeline of the prior"):
        family_of(combined.decoder_pipe)
    steps = {"prior_num_inference_steps": 2, "num_inference_steps": 2}
    plain = run(combined, "a red cat", **steps)
    with record(combined.prior_pipe, ["cat"], keep=("head", "step")) as maps:
        assert torch.equal(run(combined, "a red cat", **steps), plain)
    with record(combined.prior_pipe, ["cat"], keep=("head", "step")) as alone:
        run(combined.prior_pipe, "a red cat", num_inference_steps=2)
    assert maps.about["steps"] == 2
    for site, found in alone.layers.items():
        assert torch.equal(maps.layers[site], found)
    with edit(combined.prior_pipe, KeyMask(words=["cat"])):
        edited = run(combined, "a red cat", **steps)
    assert (edited - plain).abs().max() > 1e-6


def test_rows_and_noise_are_those_of_the_prior(combined):
    calls = []
    with attach(combined.prior_pipe).hooked(Hooks(before=calls.append)):
        run(
            combined.prior_pipe, ["a cat", "a dog"], negative_prompt=["a", "b"],
            num_inference_steps=4, num_images_per_prompt=2,
        )  # fmt: skip
    assert [call.branches for call in calls] == [("cond", "uncond")] * 4
    assert [call.step.noise for call in calls] == [1.0, 0.75, 0.5, 0.25]
    assert calls[-1].step.noise_after == 0
    assert calls[0].text.prompts == ("a cat", "a cat", "a dog", "a dog")
    assert calls[0].text.of("uncond").prompts == ("a", "a", "b", "b")
    text = calls[0].arguments["clip_text"]
    with torch.no_grad():
        for row, prompt in zip(text[[0, 2, 4, 6]], ("a cat", "a dog", "a", "b"), strict=True):
            (states, *_) = combined.prior_pipe.encode_prompt("cpu", 1, 1, False, prompt=prompt)
            assert torch.allclose(row, states[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("config", "strides"),
    [
        ({"switch_level": None, "patch_size": 1}, {1: "joint", 2: "cross"}),
        ({"switch_level": (True,), "patch_size": 2}, {2: "joint", 4: "cross"}),
    ],
)
def test_levels_are_halved_downwards_and_may_see_the_text_alone(config, strides, monkeypatch):
    pipe = cascade()
    torch.manual_seed(2)
    own = dict(pipe.prior.config) | config | {"self_attn": (True, False)}
    del own["_use_default_values"]
    pipe.register_modules(prior=StableCascadeUNet.from_config(own))
    finish(pipe, ("to_q",))
    sides = {"height": 160, "width": 224}  # 10 x 14 latents
    softmax, seen = Softmax(monkeypatch), {}
    hooks = [
        pipe.prior.get_submodule(site.name).register_forward_hook(
            lambda *_, name=site.name: seen.update({name: softmax.seen[-1]})
        )
        for site in family_of(pipe).sites(pipe.prior)
    ]
    pipe("a red cat", num_inference_steps=1, generator=torch.Generator().manual_seed(0), **sides)
    for hook in hooks:
        hook.remove()
    monkeypatch.undo()
    with record(pipe, ["cat"], where=Where(), keep=("head", "step")) as maps:
        pipe(
            "a red cat", num_inference_steps=1, generator=torch.Generator().manual_seed(0), **sides
        )
    assert {site.stride: site.kind for site in maps.sites.values()} == strides
    assert len(maps.layers) == 4
    for site in maps.sites.values():
        grid = 10 // site.stride, 14 // site.stride
        cells = grid[0] * grid[1]
        column = 3 + cells * (site.kind == "joint")  # after <|startoftext|> a red
        expected = seen[site.name][0, :, :cells, column].unflatten(-1, grid).float()
        found = maps.layers[site.name][0, 0, 0, ..., 0]
        assert torch.allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_embeddings_that_are_made_in_the_block_have_the_rows_and_words_of_the_prompts(guidance):
    """The prior reads the last layer of CLIP before its norm; two rows may be two prompts."""
    pipe, prompts = cascade(), ["a red cat", "a cat and a dog"]
    options = {"num_inference_steps": 2, "guidance_scale": guidance}
    with record(pipe, ["cat"], keep=("head", "step")) as expected:
        run(pipe, prompts, **options)
    with record(pipe, ["cat"], keep=("head", "step")) as maps:
        states, pooled, *_ = pipe.encode_prompt("cpu", 2, 1, False, prompt=prompts)
        run(pipe, None, prompt_embeds=states, prompt_embeds_pooled=pooled, **options)
    assert maps.prompts == tuple(prompts)
    for site, found in expected.layers.items():
        assert torch.equal(maps.layers[site], found)
