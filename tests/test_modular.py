"""Modular pipelines of diffusers equal the plain ones of the same weights and noise."""

import diffusers
import pytest
import torch

from attncontrol import Descent, Where, edit, locate, perturb, record, steer
from attncontrol.edits import Regions, Reweight, SoftIdentity
from attncontrol.errors import CallError, CouplingError, ModelError
from attncontrol.inversion import Exact
from attncontrol.losses import AttendAndExcite
from attncontrol.verbs.invert import invert
from attncontrol.verbs.picture import record_picture
from tests.kit import zoo
from tests.kit.modular import modular
from tests.kit.zoo_newer import ideogram4

PROMPTS = ["a red cat and a turtle", "a red dog"]
HEIGHT, WIDTH, STEPS = 64, 96, 2
NAMES = {
    "sdxl": "StableDiffusionXLAutoBlocks",
    "sd3": "StableDiffusion3AutoBlocks",
    "flux": "FluxAutoBlocks",
}
CALLS = {
    "sdxl": {"negative_prompt": ["a frog"] * 2},
    "sd3": {"negative_prompt": ["a frog"] * 2, "max_sequence_length": 16},
    "flux": {"max_sequence_length": 16},
}
SCALES = {"sdxl": {"guidance_scale": 7.5}, "sd3": {"guidance_scale": 7.0}, "flux": {}}


class Pair:
    """A plain pipeline and a modular one, called in the same way."""

    def __init__(self, name):
        self.name, self.plain = name, getattr(zoo, name)()
        self.modular = modular(NAMES[name], self.plain)
        shape = (2, 4, HEIGHT // 8, WIDTH // 8)
        self.noise = torch.randn(shape, generator=torch.Generator().manual_seed(3)).double()

    def call(self, pipe, **more):
        noise = self.packed(self.noise)
        of_both = {"prompt": PROMPTS, "height": HEIGHT, "width": WIDTH, "latents": noise}
        of_both |= {"num_inference_steps": STEPS} | CALLS[self.name] | more
        if pipe is self.modular:
            return self.packed(pipe(**of_both, output="latents"))
        return pipe(**of_both, **SCALES[self.name], output_type="latent").images

    def packed(self, latents):
        return latents if self.name != "flux" else self.plain._pack_latents(latents, *latents.shape)

    def both(self, control):
        """What a context yields and the latents, plain and modular."""
        results = []
        for pipe in (self.plain, self.modular):
            with control(pipe) as seen:
                latents = self.call(pipe)
            results += [seen, latents]
        return results

    def require_same(self, control):
        seen, expected, other, latents = self.both(control)
        torch.testing.assert_close(latents, expected, rtol=0, atol=1e-10)
        assert (expected - self.call(self.plain)).abs().max() > 1e-4
        return seen, other


@pytest.fixture(scope="module", params=list(NAMES))
def pair(request):
    return Pair(request.param)


@pytest.fixture(scope="module")
def sdxl():
    return Pair("sdxl")


def test_records_equal_those_of_the_plain_pipeline(pair):
    branches = ("cond", "uncond") if pair.name != "flux" else ("cond",)
    untouched = pair.call(pair.modular)
    expected, _, maps, latents = pair.both(
        lambda pipe: record(pipe, branches=branches, keep=["step", "head"])
    )
    assert torch.equal(latents, untouched)
    assert maps.prompts == expected.prompts == tuple(PROMPTS)
    assert (maps.timesteps, maps.branches) == (expected.timesteps, branches)
    for branch in branches:
        own, other = maps.of(branch), expected.of(branch)
        assert own.tokens == other.tokens
        assert list(own.layers) == list(other.layers)
        for name, layer in own.layers.items():
            torch.testing.assert_close(layer, other.layers[name], rtol=0, atol=1e-6)


def test_words_are_located_as_in_the_plain_pipeline(pair):
    assert locate(pair.modular, PROMPTS[0], "turtle", **CALLS[pair.name]) == locate(
        pair.plain, PROMPTS[0], "turtle", **CALLS[pair.name]
    )


def test_edits_equal_those_of_the_plain_pipeline(pair):
    pair.require_same(lambda pipe: edit(pipe, Reweight({"red": 4.0})))


def test_steering_equals_that_of_the_plain_pipeline(pair):
    descent = Descent(step_size=5.0, thresholds={})
    expected, trace = pair.require_same(
        lambda pipe: steer(pipe, AttendAndExcite(["red"]), descent=descent)
    )
    for one, same in zip(trace.steps, expected.steps, strict=True):
        torch.testing.assert_close(torch.tensor(one.losses), torch.tensor(same.losses))


def test_a_second_prediction_equals_that_of_the_plain_pipeline(sdxl):
    where = Where(kind="self")
    sdxl.require_same(lambda pipe: perturb(pipe, SoftIdentity(), where=where, scale=2.0))


def test_every_run_reads_its_own_prompts_seeds_and_sizes(sdxl):
    pipe = sdxl.modular
    for prompt in ("a dog", "a red cat"):
        with record(pipe) as maps:
            pipe(
                prompt=prompt, num_images_per_prompt=2, num_inference_steps=1, height=64, width=64,
                generator=torch.Generator().manual_seed(7), output="latents",
            )  # fmt: skip
        assert maps.prompts == (prompt, prompt)
        assert maps.about["guidance_scale"] == 7.5


def test_branches_are_those_of_the_guider(sdxl):
    pipe, guider = sdxl.modular, sdxl.modular.guider
    both = "cond", "uncond"
    guiders = [
        (("cond",), diffusers.ClassifierFreeGuidance(guidance_scale=1.0)),
        (both, diffusers.AdaptiveProjectedGuidance(guidance_scale=5.0)),
        (both, diffusers.ClassifierFreeZeroStarGuidance(guidance_scale=5.0)),
    ]
    try:
        for branches, other in guiders:
            pipe.update_components(guider=other)
            with record(pipe, branches=branches) as maps:
                sdxl.call(pipe)
            assert maps.branches == branches
            if len(branches) == 1:
                with (
                    pytest.raises(CouplingError, match="uncond"),
                    record(pipe, branches=["uncond"]),
                ):
                    sdxl.call(pipe)
    finally:
        pipe.update_components(guider=guider)


def test_a_guider_that_is_replaced_inside_the_block_is_refused(sdxl):
    pipe, guider = sdxl.modular, sdxl.modular.guider
    try:
        with pytest.raises(CouplingError, match="the guider was replaced"), record(pipe):
            pipe.update_components(guider=diffusers.ClassifierFreeGuidance(guidance_scale=2.0))
            sdxl.call(pipe)
    finally:
        pipe.update_components(guider=guider)


def test_a_prompt_that_the_blocks_do_not_read_is_no_words():
    pair = Pair("flux")
    with pytest.raises(CallError, match="text_encoder_2"), record(pair.modular, ["frog"]):
        pair.call(pair.modular, prompt=["a cat"] * 2, prompt_2=["a frog"] * 2)


def test_nothing_is_left_on_the_pipeline(sdxl):
    parts = [part for part in sdxl.modular.components.values() if part is not None]
    before = [dict(vars(part)) for part in parts]
    with record(sdxl.modular):
        sdxl.call(sdxl.modular)
    with pytest.raises(KeyError), edit(sdxl.modular, Reweight({"cat": 2.0})):
        raise KeyError
    assert [list(vars(part)) for part in parts] == [list(each) for each in before]


def test_what_modular_pipelines_do_not_show_is_refused_by_name(sdxl):
    picture = torch.zeros(64, 96, 3, dtype=torch.uint8).numpy()
    with pytest.raises(ModelError, match="a picture that exists calls methods"):
        record_picture(sdxl.modular, picture, "a dog", timestep=500.0)
    with pytest.raises(ModelError, match="modular pipeline, and invert calls methods"):
        invert(sdxl.modular, picture, "a dog", method=Exact())
    regions = Regions({"a dog": (0.0, 0.0, 0.5, 1.0)})
    further = pytest.raises(ModelError, match="an edit with further texts calls methods")
    with further, edit(sdxl.modular, regions):
        raise AssertionError("the block began")


def test_blocks_without_a_text_encoder_are_refused_by_name():
    blocks = diffusers.FluxAutoBlocks().get_workflow("text2image")
    blocks.sub_blocks.pop("text_encoder")
    pipe = blocks.init_pipeline()
    pipe.update_components(transformer=zoo.flux().transformer)
    refused = pytest.raises(ModelError, match="no tokenizer among its blocks")
    with refused, record(pipe):
        raise AssertionError("the block began")


def test_modular_pipelines_that_are_not_described_are_refused_by_name():
    pipe = modular("Ideogram4AutoBlocks", ideogram4())
    refused = pytest.raises(ModelError, match="family 'ideogram4', whose blocks are not described")
    with refused, record(pipe):
        raise AssertionError("the block began")
