"""Pipelines with three rows for every picture: [text and picture, picture alone, nothing].

The order of the rows and what each reads is written down from the code of diffusers' pipelines;
latents are compared with loops written from the paper (``tests.reference.three_rows``)."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    UNet2DConditionModel,
)

from attncontrol import Descent, Where, edit, invert, keep, locate, perturb, record, steer
from attncontrol.edits import KeyMask, LocalBlend, MutualAttention, Regions, Replace, SoftIdentity
from attncontrol.errors import CallError, CouplingError, ModelError
from attncontrol.losses import AttendAndExcite
from tests.kit.state import changes, state
from tests.kit.tiny import tiny_sd, tiny_unet
from tests.kit.zoo import finish, sdxl
from tests.kit.zoo_newer import photo
from tests.reference.loops import Softmax, loss_of
from tests.reference.three_rows import sampled

PROMPTS = ["a red cat and a turtle", "a blue cat and a turtle"]
NEGATIVES = ["a dog", "a red dog"]
BRANCHES = ("cond", "reference", "uncond")  # of the pipelines: [prompt, negative, negative]
HEIGHT, WIDTH, STEPS, TEXT, PICTURE = 64, 96, 3, 3.0, 1.7
NOISE = (0.00085, 0.012, "scaled_linear")
SCHEDULERS = {
    "ddim": partial(DDIMScheduler, *(1000, *NOISE), clip_sample=False, steps_offset=1),
    "pndm": partial(PNDMScheduler, *(1000, *NOISE), skip_prk_steps=True, steps_offset=1),
    "euler": partial(EulerDiscreteScheduler, *(1000, *NOISE), steps_offset=1),
}
CROSS = Where(kind="cross", stride=2)


def sd():
    unet = tiny_unet(in_channels=8)
    return tiny_sd(cls=StableDiffusionInstructPix2PixPipeline, unet=unet)


def xl():
    parts, unet = sdxl().components, sdxl().unet
    torch.manual_seed(0)
    parts["unet"] = UNet2DConditionModel.from_config(dict(unet.config) | {"in_channels": 8})
    parts = {name: part for name, part in parts.items() if part is not None}
    return finish(StableDiffusionXLInstructPix2PixPipeline(**parts))


class Edited:
    """A tiny pipeline, and the pictures that it is given."""

    def __init__(self, make):
        self.pipe, self.is_xl = make(), make is xl
        drawn, double = torch.Generator().manual_seed(0), torch.float64
        self.pictures = torch.rand(2, 3, HEIGHT, WIDTH, generator=drawn, dtype=double)
        self.noise = torch.randn(2, 4, 8, 12, generator=drawn, dtype=double)

    def run(self, prompts=PROMPTS, steps=STEPS, **call):
        call = {"negative_prompt": NEGATIVES, "latents": self.noise} | call
        size = {"height": HEIGHT, "width": WIDTH} if self.is_xl else {}
        return self.pipe(
            prompts, image=self.pictures, num_inference_steps=steps, output_type="latent",
            guidance_scale=TEXT, image_guidance_scale=PICTURE, **size | call,
        ).images  # fmt: skip

    def predictor(self):
        """The UNet on the latents of both pictures, for one branch."""
        pipe, texts = self.pipe, {}
        given = pipe.vae.encode(2 * self.pictures - 1).latent_dist.mode()
        for prompts in (PROMPTS, NEGATIVES):
            if self.is_xl:
                states, _, pooled, _ = pipe.encode_prompt(
                    prompts, do_classifier_free_guidance=False
                )
                ids = torch.tensor([[HEIGHT, WIDTH, 0, 0, HEIGHT, WIDTH]] * 2).double()
                texts[prompts[0]] = states, {"text_embeds": pooled, "time_ids": ids}
            else:
                ids = pipe.tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
                texts[prompts[0]] = pipe.text_encoder(ids)[0], None

        def predict(x, t, branch):
            states, added = texts[(PROMPTS if branch == "cond" else NEGATIVES)[0]]
            seen = torch.zeros_like(given) if branch == "uncond" else given
            both = torch.cat([x, seen], 1)
            return pipe.unet(
                both, t, encoder_hidden_states=states, added_cond_kwargs=added, return_dict=False
            )[0]

        return predict

    def sampled(self, **given):
        """By hand; ``given`` are made from the predictor."""
        with torch.no_grad():
            scheduler, predict = self.pipe.scheduler, self.predictor()
            scheduler.set_timesteps(STEPS)
            more = {name: make(predict) for name, make in given.items()}
            z = self.noise * scheduler.init_noise_sigma
            return sampled(scheduler, predict, z, text=TEXT, picture=PICTURE, **more)

    def named(self):
        """Names of attention modules, in the order in which they run."""
        names, unet = [], self.pipe.unet
        hooks = [
            module.register_forward_pre_hook(lambda *_, name=name: names.append(name))
            for name, module in unet.named_modules() if hasattr(module, "processor")
        ]  # fmt: skip
        with torch.no_grad():
            self.run(steps=1)
        for hook in hooks:
            hook.remove()
        return names


@pytest.fixture(scope="module", params=[sd, xl], ids=["sd", "xl"])
def edited(request):
    return Edited(request.param)


def test_without_edits_the_loop_by_hand_is_the_pipeline(edited):
    torch.testing.assert_close(edited.run(), edited.sampled(), rtol=0, atol=1e-10)


def test_maps_of_all_branches_equal_the_explicit_softmax(edited, monkeypatch):
    before, plain = state(edited.pipe), edited.run()
    words = {PROMPTS[0]: ["red", "turtle", "dog"], PROMPTS[1]: ["blue", "cat", "dog"]}
    with record(edited.pipe, words, keep=("head", "step"), branches=BRANCHES) as maps:
        assert torch.equal(edited.run(), plain)
    assert not changes(before, state(edited.pipe))
    assert maps.branches == BRANCHES
    for branch in BRANCHES[1:]:
        assert maps.of(branch).prompts == tuple(NEGATIVES)
    softmax, names = Softmax(monkeypatch), edited.named()
    softmax.seen.clear()
    edited.run()
    seen = [weights for weights in softmax.seen if len(weights) == 6]  # of the UNet
    for site, layer in maps.layers.items():
        calls = [k for k, name in enumerate(names * STEPS) if name == site]
        for branch, name in enumerate(BRANCHES):
            for image in range(2):
                text = (NEGATIVES if branch else PROMPTS)[image]
                for k, word in enumerate(words[PROMPTS[image]]):
                    found = layer[image, branch, ..., k]
                    if word not in text.split():
                        assert found.isnan().all()
                        continue
                    places = list(locate(edited.pipe, text, word).positions)
                    rows = [seen[n][2 * branch + image] for n in calls]
                    wanted = torch.stack(rows)[..., places].sum(-1).unflatten(2, found.shape[2:])
                    torch.testing.assert_close(found, wanted.float(), rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_steered_latents_equal_a_loop_by_hand(edited, name, monkeypatch):
    monkeypatch.setattr(edited.pipe, "scheduler", SCHEDULERS[name]())
    steps = {"ddim": 3, "pndm": 4, "euler": 3}[name]
    alpha = Descent(step_size=20.0, thresholds={}, guided=1.0)
    with steer(
        edited.pipe, AttendAndExcite(["cat", "turtle"]), where=CROSS, descent=alpha
    ) as trace:
        guided = edited.run()
    assert len(trace.steps) == steps
    plain, names = edited.run(), edited.named()
    sites = [k for k, site in enumerate(names) if site.endswith("attn2")]
    softmax = Softmax(monkeypatch)
    (found,) = {tuple(locate(edited.pipe, p, w).positions for w in ("cat", "turtle"))
                for p in PROMPTS}  # fmt: skip
    subjects = [place for of in found for place in of]

    def descent(predict):
        def change(i, x, t):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                softmax.seen.clear()
                predict(leaf, t, "cond")
                seen = [softmax.seen[k] for k in sites]
                picked = [weights for weights in seen if weights.shape[2] == 24]
                maps = torch.stack(picked).mean((0, 2)).unflatten(1, (4, 6))
                loss = sum(loss_of(of, [list(range(1, 31))], subjects) for of in maps)
                (gradient,) = torch.autograd.grad(loss, leaf)
            return -20 * math.sqrt(1 - 0.5 * i / (steps - 1)) * gradient

        return change

    expected = edited.sampled(change=descent)
    assert (guided - plain).abs().max() > 1e-3
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-6)


def test_perturb_weakens_the_row_of_text_and_picture(edited, monkeypatch):
    with perturb(edited.pipe, SoftIdentity(), scale=2.0, where=Where(kind="self")):
        pushed = edited.run()
    plain, kernel = edited.run(), F.scaled_dot_product_attention

    def identity(query, key, value, **options):
        own = query.shape[2] == key.shape[2] == value.shape[2] and query.shape[2] != 32
        return value if own else kernel(query, key, value, **options)

    def weakened(predict):
        def more(x, t, cond):
            with monkeypatch.context() as patched:
                patched.setattr(F, "scaled_dot_product_attention", identity)
                return 2.0 * (cond - predict(x, t, "cond"))

        return more

    assert (pushed - plain).abs().max() > 1e-3
    torch.testing.assert_close(pushed, edited.sampled(more=weakened), rtol=0, atol=1e-9)


def in_kernel(edited, monkeypatch, change):
    """The latents of a run in which the kernel gets what ``change(query, key, value)`` makes."""
    kernel = F.scaled_dot_product_attention

    def changed(query, key, value, attn_mask=None, **options):
        if len(query) == 6:  # of the UNet
            query, key, value, attn_mask = change(query.clone(), key.clone(), value.clone())
        return kernel(query, key, value, attn_mask=attn_mask, **options)

    with monkeypatch.context() as patched:
        patched.setattr(F, "scaled_dot_product_attention", changed)
        return edited.run()


def hide_words(query, key, value):
    mask = torch.ones(6, 1, 1, key.shape[2], dtype=torch.bool)
    if key.shape[2] == 32:
        mask[0, ..., 3] = mask[1, ..., 3] = False
    return query, key, value, mask


def layout_of_the_source(query, key, value):
    query[1], key[1] = query[0], key[0]
    return query, key, value, None


def contents_of_the_source(query, key, value):
    if key.shape[2] != 32:
        key[1::2], value[1::2] = key[::2], value[::2]
    return query, key, value, None


EDITS = {
    "key mask": (KeyMask(words=["cat"]), hide_words),
    "replace": (Replace(cross=1.0, among=1.0), layout_of_the_source),
    "mutual": (MutualAttention(start=0.0), contents_of_the_source),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_equal_the_same_in_the_kernel(edited, name, monkeypatch):
    change, by_hand = EDITS[name]
    plain = edited.run()
    with edit(edited.pipe, change):
        found = edited.run()
    torch.testing.assert_close(found, in_kernel(edited, monkeypatch, by_hand), rtol=0, atol=1e-9)
    assert (found[1] - plain[1]).abs().max() > 1e-3
    if name != "key mask":
        assert (found[0] - plain[0]).abs().max() < 1e-12


def test_attention_of_all_three_rows_is_kept():
    edited, change = Edited(sd), MutualAttention(start=0.0)
    with edit(edited.pipe, change):
        both = edited.run()
    noise, pictures = edited.noise, edited.pictures
    edited.pictures = pictures[:1]
    with keep(edited.pipe, change) as source:
        edited.run(PROMPTS[:1], negative_prompt=NEGATIVES[:1], latents=noise[:1])
    edited.pictures = pictures[1:]
    with edit(edited.pipe, MutualAttention(source=source, start=0.0)):
        alone = edited.run(PROMPTS[1:], negative_prompt=NEGATIVES[1:], latents=noise[1:])
    torch.testing.assert_close(alone, both[1:], rtol=0, atol=1e-12)


def test_blends_keep_the_source_elsewhere(edited):
    same = edited.noise[:1].expand(2, -1, -1, -1)
    with edit(edited.pipe, Replace()), edit(edited.pipe, LocalBlend(["red", "blue"], start=0.0)):
        source, changed = edited.run(latents=same)
    equal = (source - changed).abs().amax(0) < 1e-12
    assert 0 < equal.sum() < equal.numel()
    assert torch.equal(source, edited.run(latents=same)[0])


def test_texts_of_regions_reach_the_rows_of_the_prompt_alone(edited):
    predictions = []
    handle = edited.pipe.unet.register_forward_hook(lambda *given: predictions.append(given[2][0]))
    everywhere = (0.0, 0.0, 1.0, 1.0)
    try:
        edited.run(steps=1)
        for negatives in ({}, {"a frog": everywhere}):
            with edit(edited.pipe, Regions({"a dog": everywhere}, negatives=negatives)):
                edited.run(steps=1)
    finally:
        handle.remove()
    plain, positive, both = predictions
    moved = [(one - plain).abs().flatten(1).amax(1) > 1e-6 for one in (positive, both)]
    assert moved[0].tolist() == [True, True, False, False, False, False]
    assert moved[1].all()


@pytest.mark.parametrize("scales", [{"guidance_scale": 1.0}, {"image_guidance_scale": 0.9}])
def test_without_either_guidance_there_is_one_row(edited, scales):
    known = {"image": edited.pictures, "num_inference_steps": 1, "output_type": "latent"}
    known |= {"height": HEIGHT, "width": WIDTH} if edited.is_xl else {}
    seen = []
    handle = edited.pipe.unet.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    with record(edited.pipe, ["cat"]) as maps:
        edited.pipe(PROMPTS, **known, **scales)
    handle.remove()
    assert seen == [2]
    assert len(maps["cat"]) == 2
    missing = pytest.raises(CouplingError, match=r"branch .'reference'. does not exist")
    with missing, record(edited.pipe, ["cat"], branches=("cond", "reference")):
        edited.pipe(PROMPTS, **known, **scales)


def test_several_pictures_of_a_prompt_and_embeddings():
    edited = Edited(sd)
    ids = edited.pipe.tokenizer(PROMPTS[:1], padding="max_length", return_tensors="pt").input_ids
    states = edited.pipe.text_encoder(ids)[0].detach()
    given = {"prompt_embeds": states, "negative_prompt_embeds": 0 * states, "negative_prompt": None}
    found = []
    for prompt, more in ((PROMPTS[0], {"negative_prompt": NEGATIVES[0]}), (None, given)):
        with record(edited.pipe, [3], branches=("cond", "reference")) as maps:
            edited.run(prompt, steps=1, num_images_per_prompt=2, **more)
        assert maps.of("reference").prompts[0] == ("" if prompt is None else NEGATIVES[0])
        found.append(maps.layers)
    for site, layer in found[0].items():
        assert layer.shape[:2] == (2, 2)
        torch.testing.assert_close(layer[:, 0], found[1][site][:, 0], rtol=0, atol=1e-6)


def test_what_cannot_be_known_is_refused(edited):
    if edited.is_xl:
        states, negative, pooled, other = edited.pipe.encode_prompt(
            PROMPTS, negative_prompt=NEGATIVES
        )
        given = {
            "prompt_embeds": states, "negative_prompt_embeds": negative, "negative_prompt": None,
            "pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": other,
        }  # fmt: skip
        unknown = pytest.raises(CallError, match=r"does not say whether it is guided.*prompt=")
        with unknown, record(edited.pipe, [3]):
            edited.run(None, **given)
    with pytest.raises(ModelError, match="makes a picture of another one"):
        invert(edited.pipe, photo(WIDTH, HEIGHT, 0), "a cat")
