"""Pictures that exist with every family that makes pictures: latents are those that the pipeline
decodes, and its own where it takes a picture itself."""

from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from diffusers import (
    ChromaImg2ImgPipeline,
    DDIMScheduler,
    FluxImg2ImgPipeline,
    QwenImageImg2ImgPipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
    ZImageImg2ImgPipeline,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from attncontrol import invert, retrace
from attncontrol.errors import ModelError, SchedulerError, SettingError
from attncontrol.families import family_of
from attncontrol.inversion import FixedPoint, NegativePrompt, NullText, RFSolver, null_text
from attncontrol.verbs.picture import record_picture
from tests.kit.photos import SIZE, odd, photos, reconstructed
from tests.kit.state import left_behind
from tests.kit.zoo import EXTRA, MORE, ZOO
from tests.kit.zoo_chat import CHAT, EXTRA_CHAT, VIDEO, lumina_next
from tests.kit.zoo_given import GIVEN
from tests.kit.zoo_newer import NEWER
from tests.kit.zoo_videos import VIDEOS

pytestmark = pytest.mark.filterwarnings("ignore:`LoraLoaderMixin`")
PROMPTS = ["a cat", "a dog"]
STEPS = 2


@dataclass(frozen=True)
class Case:
    make: Any
    options: dict[str, Any] = field(default_factory=dict)
    patches: tuple[tuple[str, Any], ...] = ()


def newer(name, **options):
    known = NEWER[name]
    return Case(known.make, known.options | options, known.patches)


def fibo():
    """Its own autoencoder makes cells of 16 pixels."""
    pipe = NEWER["fibo"].make()
    pipe.vae_scale_factor = 8
    return pipe


def plain_ddim(make):
    def made():
        pipe = make()
        pipe.scheduler = DDIMScheduler(clip_sample=False)
        return pipe

    return made


def cogview3():
    pipe = NEWER["cogview3"].make()
    pipe.scheduler.register_to_config(clip_sample=False)
    return pipe


def sdxl():
    """Of the kind with statistics of every channel."""
    pipe = ZOO["sdxl"]()
    pipe.vae.register_to_config(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    return pipe


def size_of(name):
    """(height, width), of those that cannot be small their own."""
    return SIZE if name in ("kandinsky5", "hidream") else (32, 64)


def sides(name):
    return dict(zip(("height", "width"), size_of(name), strict=True))


def shown(name, count=2):
    height, width = size_of(name)
    return [picture[:height, :width] for picture in photos(count)]


GUIDED = {"guidance_scale": 2.0}
CASES = {
    **{name: Case(ZOO[name], EXTRA.get(name, {})) for name in ("sd", "sd3", "flux")},
    "sdxl": Case(sdxl),
    "pixart": Case(plain_ddim(ZOO["pixart"]), EXTRA["pixart"]),
    **{name: Case(MORE[name], EXTRA[name] | GUIDED) for name in ("chroma", "auraflow", "sana")},
    "hunyuandit": Case(plain_ddim(MORE["hunyuandit"]), EXTRA["hunyuandit"]),
    **{name: Case(CHAT[name], EXTRA_CHAT[name]) for name in CHAT},
    **{name: newer(name) for name in ("ovis", "longcat", "bria", "krea2", "cogview4", "ernie")},
    **{
        name: newer(name)
        for name in ("kandinsky5", "hunyuanimage", "qwenimage21", "nucleus", "fibo2", "lumina")
    },
    "omnigen": newer("omnigen"),
    "prx": newer("prx", guidance_scale=1.0),  # guided it takes one prompt
    "ideogram4": newer("ideogram4", guidance_scale=2.0),
    "fibo": Case(fibo, NEWER["fibo"].options),
    "cogview3": Case(cogview3, NEWER["cogview3"].options),
}


@pytest.fixture
def patched():
    with ExitStack() as stack:
        yield lambda of: [stack.enter_context(patch(*each, create=True)) for each in of]


@pytest.mark.parametrize("name", CASES)
def test_the_picture_comes_back_as_its_autoencoder_gives_it(name, patched):
    """By the pipeline's own decoding, under its guidance."""
    case = CASES[name]
    patched(case.patches)
    pipe, own = odd(case.make()), case.options
    plain = {k: v for k, v in own.items() if k not in ("image", "guidance_scale")}
    some, size = shown(name), size_of(name)
    kept = invert(pipe, some, PROMPTS, size=size, num_inference_steps=STEPS, **plain)
    call = own | sides(name) | {"num_inference_steps": STEPS}
    with retrace(pipe, kept):
        made = pipe(prompt=PROMPTS, output_type="pt", **call)
    pictures = made.image if hasattr(made, "image") else made.images
    expected = reconstructed(pipe, some)
    bound = 1e-6 if pipe.vae.dtype == torch.float64 else 1e-5
    assert (pictures.double() - expected.double()).abs().max() < bound
    assert not left_behind(pipe)


IMG2IMG = {
    "sd": (ZOO["sd"], StableDiffusionImg2ImgPipeline),
    "sdxl": (ZOO["sdxl"], StableDiffusionXLImg2ImgPipeline),
    "sd3": (ZOO["sd3"], StableDiffusion3Img2ImgPipeline),
    "flux": (ZOO["flux"], FluxImg2ImgPipeline),
    "chroma": (MORE["chroma"], ChromaImg2ImgPipeline),
    "qwenimage": (CHAT["qwenimage"], QwenImageImg2ImgPipeline),
    "zimage": (CHAT["zimage"], ZImageImg2ImgPipeline),
}
OF_UNETS = {"sd": {"requires_safety_checker": False}}


class Seen(Exception):  # noqa: N818 - a signal
    pass


@pytest.mark.parametrize("name", IMG2IMG)
def test_latents_are_those_of_the_pipeline_that_takes_a_picture(name, monkeypatch):
    """Its mean instead of a sample, and no noise added: what the denoiser sees first."""
    make, cls = IMG2IMG[name]
    plain = odd(make())
    if name in ("sd", "sdxl"):
        plain.scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    pipe = cls(**plain.components, **OF_UNETS.get(name, {}))
    pipe.set_progress_bar_config(disable=True)
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda of, *_, **__: of.mean)
    noising = "add_noise" if name in ("sd", "sdxl") else "scale_noise"
    monkeypatch.setattr(type(pipe.scheduler), noising, lambda _, clean, *__, **___: clean)
    family, seen = family_of(pipe), []

    def look(denoiser, args, named):
        from attncontrol.running.observers import inputs_of

        arguments = inputs_of(denoiser, args, named)
        sample = arguments[family.sample]
        seen.append(torch.stack(sample) if isinstance(sample, list) else sample)
        raise Seen

    family.denoiser(pipe).register_forward_pre_hook(look, with_kwargs=True)
    pictures = [Image.fromarray(picture) for picture in shown(name)]
    size = {} if name in ("sd", "sdxl") else sides(name)
    more = {**EXTRA.get(name, {}), **EXTRA_CHAT.get(name, {}), "guidance_scale": family.unguided}
    with pytest.raises(Seen):
        pipe(prompt=PROMPTS, image=pictures, strength=1.0, num_inference_steps=2, **size, **more)
    pixels = torch.tensor(np.stack(shown(name))).permute(0, 3, 1, 2).double() / 127.5 - 1
    with torch.no_grad():
        clean = family.clean(pipe, pixels)
    assert torch.allclose(seen[0].view_as(clean), clean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["zimage", "krea2", "qwenimage", "hunyuanimage"])
def test_without_a_scale_it_is_inverted_without_guidance(name):
    """Whatever number of theirs means that, and guiders are as before."""
    pipe = CASES[name].make()
    own = {k: v for k, v in CASES[name].options.items() if k not in ("true_cfg_scale", *GUIDED)}
    rows, denoiser = [], family_of(pipe).denoiser(pipe)
    denoiser.register_forward_hook(lambda _, __, made: rows.append(len(made[0])))
    some, size = shown(name, 1), size_of(name)
    invert(pipe, some, "a cat", size=size, num_inference_steps=STEPS, **own)
    assert rows == [1, 1]
    if name == "hunyuanimage":
        assert pipe.guider._enabled
        assert pipe.ocr_guider._enabled
        with pytest.raises(SettingError, match=r"guidance_scale=3.0 is not known to HunyuanImage"):
            invert(pipe, some, "a cat", size=size, guidance_scale=3.0, **own)


@pytest.mark.parametrize("name", ["lumina2", "zimage", "ernie", "omnigen"])
def test_what_the_loop_makes_of_a_prediction_is_undone(name):
    """From the noise alone, where fixed points were found, the loop comes to the picture: of
    pipelines that turn the sign, have another shape or prepare latents in their own way."""
    case = CASES[name]
    pipe = case.make()
    for weights in family_of(pipe).denoiser(pipe).parameters():
        weights.mul_(0.3)  # towards a contraction
    own = {k: v for k, v in case.options.items() if k not in GUIDED}
    given = own | {"method": FixedPoint(15), "num_inference_steps": STEPS}
    kept = invert(pipe, shown(name, 1), "a cat", size=size_of(name), **given)
    none = family_of(pipe).unguided
    call = own | sides(name) | {"num_inference_steps": STEPS, "guidance_scale": none}
    with retrace(pipe, kept):
        found = pipe(prompt=["a cat"], output_type="pt", **call).images
    assert (found - reconstructed(pipe, shown(name, 1))).abs().max() < 1e-5
    assert (kept.latents[:, 0] - kept.latents[:, -1]).abs().max() > 1e-3


ONE_CALL = ("sana", "hunyuandit", "auraflow", "cogview3", "bria", "fibo", "prx")
"""Families of both branches in one call, beside those of ``test_null_texts_of_models``."""
OTHER_TEXTS = ("ernie", "zimage", "hidream", "omnigen")


def opened(name, patched):
    """A pipeline and what its call needs beside guidance."""
    case = CASES[name]
    patched(case.patches)
    return case.make(), {k: v for k, v in case.options.items() if k not in GUIDED}


@pytest.mark.parametrize("name", [*ONE_CALL, *OTHER_TEXTS])
def test_the_prompt_as_the_negative_one_cancels_guidance(name, patched):
    """So the run is that of the noise without any."""
    pipe, own = opened(name, patched)
    given = own | {"method": NegativePrompt(), "num_inference_steps": 1}
    kept = invert(pipe, shown(name, 1), "a cat", size=size_of(name), **given)
    call = own | sides(name) | {"num_inference_steps": 1, "output_type": "latent"}
    with retrace(pipe, kept):
        found = pipe(prompt=["a cat"], guidance_scale=3.0, **call).images
    noise, none = kept.latents[:, 0].clone(), family_of(pipe).unguided
    plain = pipe(prompt=["a cat"], guidance_scale=none, latents=noise, **call).images
    assert torch.allclose(found, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ONE_CALL)
def test_null_texts_are_optimised_for_what_the_pipeline_steps_by(name, patched, monkeypatch):
    """A prediction made by hand for them is that which its loop gives the scheduler."""
    pipe, own = opened(name, patched)
    expected, stepped = [], []
    optimised, onwards = null_text.Tuning._optimised, null_text.onwards

    def look(self, call, picture):
        null = optimised(self, call, picture)
        with torch.no_grad():
            told = self._predicted(call.of("cond", [picture]))
            blank = self._predicted(null_text.with_null(call.of("uncond", [picture]), null))
        expected.append(blank + self.method.guidance_scale * (told - blank))
        return null

    def go(start, schedule):
        looks = onwards(start, schedule)
        prediction = yield next(looks)
        stepped.append(prediction)
        with suppress(StopIteration):
            looks.send(prediction)
        return [start, start]

    monkeypatch.setattr(null_text.Tuning, "_optimised", look)
    monkeypatch.setattr(null_text, "onwards", go)
    given = own | {"method": NullText(3.0, iterations=1), "num_inference_steps": 1}
    kept = invert(pipe, shown(name, 1), "a cat", size=size_of(name), **given)
    assert torch.allclose(stepped[-1], expected[0], rtol=0, atol=1e-6)
    assert kept.complete


@pytest.mark.parametrize("name", OTHER_TEXTS)
def test_null_texts_of_other_names_are_refused(name, patched):
    pipe, own = opened(name, patched)
    with pytest.raises(ModelError, match=r"NullText optimises encoder_hidden_states|without grad"):
        invert(pipe, shown(name, 1), "a cat", method=NullText(3.0), **own)


REFUSED = {
    "video": (VIDEO["wan"], ModelError, "given to WanPipeline: it makes videos"),
    "cosmos": (VIDEOS["cosmos"].make, ModelError, "the pipeline scales the latents by itself"),
    "kandinsky3": (VIDEOS["kandinsky3"].make, ModelError, "of quantised latents"),
    "unknown": (lumina_next, ModelError, "latents before it decodes them is not described"),
    "sprint": (NEWER["sprint"].make, SchedulerError, "SCMScheduler cannot be inverted"),
    "edit": (NEWER["qwen-edit"].make, ModelError, "makes a picture of another one"),
    "refiner": (GIVEN["refiner"].make, ModelError, "makes a picture of another one"),
    "layered": (GIVEN["qwen-layered"].make, ModelError, "it makes layers of another one"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_inverted_is_refused_by_name(name):
    make, error, message = REFUSED[name]
    pipe = make()
    with pytest.raises(error, match=message):
        invert(pipe, photos(1), "a cat")
    if name in ("video", "cosmos", "kandinsky3", "unknown"):
        with pytest.raises(error, match=message):
            record_picture(pipe, photos(1)[0], "a cat", timestep=500.0)


def test_solvers_are_refused_where_every_step_has_a_scale():
    with pytest.raises(ModelError, match="each has a guidance scale in Ideogram4Pipeline: use E"):
        invert(CASES["ideogram4"].make(), photos(1), "a cat", method=RFSolver())


def test_latents_of_less_exact_autoencoders_are_of_32_bits():
    pipe = odd(CHAT["klein"]())
    pipe.vae.to(torch.bfloat16)
    with torch.no_grad():
        clean = family_of(pipe).clean(pipe, torch.zeros(1, 3, 32, 64))
    assert clean.dtype == torch.float32
    assert not torch.equal(clean, clean.bfloat16().float())


def test_an_autoencoder_that_overflows_in_half_precision_encodes_in_float32():
    """Where it says so (``force_upcast``), like that of SDXL; its weights stay as they are."""
    pipe = ZOO["sdxl"]()
    clean, pictures = family_of(pipe).clean, torch.rand(1, 3, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        pipe.vae.encoder.conv_in.weight.fill_(6e4)
        pipe.vae.half().double()  # rounded once
        expected = clean(pipe, pictures)
        weights = list(pipe.vae.half().parameters())
        before = [weight.clone() for weight in weights]
        assert not pipe.vae.encode(pictures.half()).latent_dist.mean.isfinite().any()
        found = clean(pipe, pictures)
        with pytest.raises(RuntimeError, match="channels"):
            clean(pipe, pictures[:, :2])
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    assert all(now is of for now, of in zip(pipe.vae.parameters(), weights, strict=True))
    assert all(torch.equal(now, of) for now, of in zip(weights, before, strict=True))
    assert pipe.vae.dtype == torch.float16


def test_sizes_that_a_pipeline_chooses_itself():
    pipe = MORE["sana"]()
    own = {**EXTRA["sana"], "use_resolution_binning": True}
    with pytest.raises(SettingError, match=r"a size that it makes, with use_resolution_binning=F"):
        invert(pipe, photos(1), "a cat", size=SIZE, num_inference_steps=STEPS, **own)
    assert not left_behind(pipe)
    pipe = NEWER["kandinsky5"].make()
    kept = invert(pipe, photos(1), "a cat", num_inference_steps=STEPS)
    assert kept.size == (64, 96)
    with pytest.raises(SettingError, match=r"Kandinsky5T2IPipeline makes pictures of \(64, 96\) a"):
        invert(pipe, photos(1), "a cat", size=(96, 64))
