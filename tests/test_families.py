"""The same verbs on every architecture: what is recorded and steered, against explicit softmax and hand-written loops."""

import pytest
import torch

from attncontrol import AttendAndExcite, Descent, Where, locate, record, steer
from attncontrol.families import family_of
from tests.reference.loops import Softmax, steered
from tests.zoo import EXTRA, MORE, ZOO

PROMPTS = ["a red cat and a turtle", "a dog"]
HEIGHT, WIDTH = 64, 96


@pytest.fixture(params=[*ZOO, *MORE], scope="module")
def named(request):
    return request.param, (ZOO | MORE)[request.param]()


def run(name, pipe, prompt=PROMPTS[0], *, steps=2, seed=0, **kwargs):
    call = {"height": HEIGHT, "width": WIDTH, "num_inference_steps": steps, "output_type": "latent"} | EXTRA.get(name, {}) | kwargs
    return pipe(prompt, generator=torch.Generator().manual_seed(seed), **call).images


def test_recorded_maps_equal_the_explicit_softmax(named, monkeypatch):
    name, pipe = named
    family = family_of(pipe)
    sites = family.sites(family.denoiser(pipe))
    text_sites = [site for site in sites if site.kind != "self"]
    kept = {}
    denoiser = family.denoiser(pipe)
    softmax = Softmax(monkeypatch)
    hooks = []
    for site in text_sites:
        module = denoiser.get_submodule(site.name)
        hooks.append(
            module.register_forward_hook(lambda *_, s=site.name: kept.setdefault(s, []).append(softmax.seen[-1]), always_call=True)
        )
    arguments = {}
    hooks.append(denoiser.register_forward_pre_hook(lambda _m, _a, k: arguments.update(k), with_kwargs=True))
    run(name, pipe, PROMPTS)
    for hook in hooks:
        hook.remove()
    monkeypatch.undo()
    with record(pipe, {PROMPTS[0]: ["cat", "turtle"], PROMPTS[1]: ["dog", "a"]}, keep=("head", "step")) as maps:
        run(name, pipe, PROMPTS)
    assert set(maps.layers) == {site.name for site in text_sites}
    tolerance = 3e-5 if name == "hunyuandit" else 1e-6  # parts of HunyuanDiT compute in float32
    for site in text_sites:
        expected = torch.stack([p[-2:] for p in kept[site.name]])  # step image head query key
        queries = expected.shape[-2]
        recorded = maps.layers[site.name][:, 0]  # image step head height width word
        grid = recorded.shape[3:5]
        picture = grid[0] * grid[1]
        assert grid[0] * 3 == grid[1] * 2
        first_image = queries - picture if name in ("flux", "chroma", "auraflow") else 0
        first_text = {"sd3": picture, "sd35": picture, "auraflow": 8}.get(name, 0)
        for image, prompt in enumerate(PROMPTS):
            for k, word in enumerate(maps.labels[image]):
                positions = [first_text + p for p in locate_in_call(name, prompt, word)]
                of_word = expected[:, image, :, first_image : first_image + picture][..., positions].sum(-1)
                torch.testing.assert_close(recorded[image, ..., k], of_word.unflatten(2, grid).float(), rtol=0, atol=tolerance)


CLIP = {"cat": [3], "turtle": [6, 7], "dog": [2], "a": [1]}  # after the start token
T5 = {"cat": [2], "turtle": [5, 6], "dog": [1], "a": [0]}


def locate_in_call(name, _prompt, word):
    if name in ("sd", "sdxl"):
        return CLIP[word]
    if name in ("flux", "pixart", "chroma", "auraflow", "sana"):
        return T5[word]
    return CLIP[word] + [(77 if name == "hunyuandit" else 32) + p for p in T5[word]]


def test_words_are_located_in_every_encoder(named):
    name, pipe = named
    found = locate(pipe, PROMPTS[0], "turtle", **EXTRA.get(name, {}))
    assert list(found.positions) == locate_in_call(name, PROMPTS[0], "turtle")


def test_recording_changes_nothing_and_exit_restores_everything(named):
    name, pipe = named
    denoiser = family_of(pipe).denoiser(pipe)
    processors = {n: m.processor for n, m in denoiser.named_modules() if hasattr(m, "processor")}
    plain = run(name, pipe)
    with record(pipe, ["cat"]) as maps:
        assert torch.equal(run(name, pipe), plain)
    assert maps["cat"].shape[0] == 1
    with pytest.raises(ZeroDivisionError), steer(pipe, AttendAndExcite(["cat", "turtle"])):
        run(name, pipe)
        raise ZeroDivisionError
    assert {n: m.processor for n, m in denoiser.named_modules() if hasattr(m, "processor")} == processors
    assert not denoiser._forward_pre_hooks
    assert not {"step", "encode_prompt", "check_inputs"} & {*vars(pipe), *vars(pipe.scheduler)}
    assert torch.equal(run(name, pipe), plain)


def calls_of(name, pipe):
    """What the oracle needs: the model's prediction, the text sites, the picture's rows, the text columns, the token positions."""
    tokens = EXTRA.get(name, {}).get("max_sequence_length")
    grid = (4, 6)
    if name == "sdxl":
        states, negative, pooled, no_pooled = pipe.encode_prompt(PROMPTS[0], negative_prompt="", do_classifier_free_guidance=True)
        ids = pipe._get_add_time_ids((HEIGHT, WIDTH), (0, 0), (HEIGHT, WIDTH), torch.float64, 32)

        def call(z, t, branch):
            cond = branch == "cond"
            added = {"text_embeds": pooled if cond else no_pooled, "time_ids": ids}
            text = states if cond else negative
            return pipe.unet(z, t, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False)[0]

        count = sum(name.endswith("attn2") for name, _ in pipe.unet.named_modules())
        return call, range(1, 2 * count, 2), slice(None), slice(None), grid, [list(range(1, 31))], [3, 6, 7]
    if name == "pixart":
        states, mask, negative, no_mask = pipe.encode_prompt(PROMPTS[0], max_sequence_length=tokens, clean_caption=False)

        def call(z, t, branch):
            cond = branch == "cond"
            text, keep = (states, mask) if cond else (negative, no_mask)
            added = {"resolution": None, "aspect_ratio": None}
            out = pipe.transformer(
                z, encoder_hidden_states=text, encoder_attention_mask=keep, timestep=t.expand(1), added_cond_kwargs=added
            ).sample
            return out.chunk(2, 1)[0]

        return call, (1, 3), slice(None), slice(None), grid, [list(range(7))], [2, 5, 6]
    if name == "flux":
        states, pooled, text_ids = pipe.encode_prompt(PROMPTS[0], None, max_sequence_length=tokens)
        negative, no_pooled, _ = pipe.encode_prompt("", None, max_sequence_length=tokens)
        ids = pipe._prepare_latent_image_ids(1, 4, 6, "cpu", torch.float64)

        def call(z, t, branch):
            cond = branch == "cond"
            return pipe.transformer(
                z, encoder_hidden_states=states if cond else negative, pooled_projections=pooled if cond else no_pooled,
                timestep=t.expand(1) / 1000, img_ids=ids, txt_ids=text_ids, return_dict=False,
            )[0]  # fmt: skip

        return call, (0, 1), slice(tokens, None), slice(tokens), grid, [list(range(7))], [2, 5, 6]
    states, negative, pooled, no_pooled = pipe.encode_prompt(PROMPTS[0], None, None, max_sequence_length=tokens)

    def call(z, t, branch):
        cond = branch == "cond"
        return pipe.transformer(
            z, timestep=t.expand(1), encoder_hidden_states=states if cond else negative,
            pooled_projections=pooled if cond else no_pooled, return_dict=False,
        )[0]  # fmt: skip

    joint = (0, 2, 4) if name == "sd35" else (0, 1, 2)
    encoders = [list(range(1, 8)), list(range(32, 39))]
    return call, joint, slice(24), slice(24, None), grid, encoders, [3, 6, 7, 34, 37, 38]


@pytest.mark.parametrize("guided_by_negative", [False, True])
@pytest.mark.parametrize("name", ["sdxl", "sd3", "sd35", "flux", "pixart"])  # "sd" has an oracle in test_steer.py
def test_steering_equals_a_hand_written_loop(name, monkeypatch, guided_by_negative):
    pipe = ZOO[name]()
    where = Where(kind=("cross", "joint"), layers=("transformer_blocks",) if name == "flux" else ())
    scale = {"true_cfg_scale" if name == "flux" else "guidance_scale": 3.0 if guided_by_negative else 1.0}
    scale |= {"negative_prompt": "" if guided_by_negative else None}
    started = torch.Generator().manual_seed(3)
    shape = (1, 24, 16) if name == "flux" else (1, 4, 8, 12)
    latents = torch.randn(shape, generator=started, dtype=torch.float64)
    descent = Descent(step_size=20.0, guided=0.7, thresholds={})
    with steer(pipe, AttendAndExcite(["cat", "turtle"]), where=where, descent=descent) as trace:
        guided = run(name, pipe, steps=3, latents=latents.clone(), **scale)
    plain = run(name, pipe, steps=3, latents=latents.clone(), **scale)
    assert len(trace.steps) == 2
    softmax = Softmax(monkeypatch)
    with torch.no_grad():
        parts = calls_of(name, pipe)
        pipe.scheduler.set_timesteps(3)
        if name == "flux":
            pipe.scheduler.set_timesteps(sigmas=[1.0, 2 / 3, 1 / 3])
        z = latents.clone() * getattr(pipe.scheduler, "init_noise_sigma", 1.0)
        call, text_calls, rows, columns, grid, encoders, subjects = parts
        expected = steered(
            pipe, softmax, call, z, text_calls=text_calls, rows=rows, columns=columns, grid=grid, encoders=encoders,
            subjects=subjects, alpha=20.0, guided=2, scale=3.0, negative=guided_by_negative,
        )  # fmt: skip
    assert (guided - plain).abs().max() > 1e-3
    assert (guided - expected).abs().max() < 1e-6 * expected.abs().max()


def test_a_picture_does_not_depend_on_its_batch(named):
    name, pipe = named
    words = {PROMPTS[0]: ["cat", "turtle"], PROMPTS[1]: ["dog"]}
    where = Where(kind=("cross", "joint"))
    descent = Descent(step_size=20.0, thresholds={0.0: 0.9}, max_refinements=2)
    shape = {"flux": (2, 24, 16), "chroma": (2, 24, 16), "sana": (2, 4, 32, 48)}.get(name, (2, 4, 8, 12))
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with steer(pipe, AttendAndExcite(words), where=where, descent=descent):
        both = run(name, pipe, PROMPTS, latents=latents.clone())
    for image, prompt in enumerate(PROMPTS):
        with steer(pipe, AttendAndExcite(words), where=where, descent=descent):
            alone = run(name, pipe, prompt, latents=latents[image : image + 1].clone())
        torch.testing.assert_close(both[image], alone[0], rtol=0, atol=1e-4 if name == "hunyuandit" else 1e-6)


def test_sana_reads_an_instruction_before_the_prompt():
    pipe = MORE["sana"]()
    encoding = {"max_sequence_length": 16, "complex_human_instruction": ["Be brief.", "So: "]}
    tokens = family_of(pipe).tokens(pipe, PROMPTS[0], encoding)
    found = locate(pipe, PROMPTS[0], "turtle", **encoding)
    assert [tokens[k].text for k in found.positions] == ["tur", "tle"]
    assert [token.index for token in tokens] == list(range(16))
    with record(pipe, ["turtle"]) as maps:
        run("sana", pipe, **encoding)
    with record(pipe) as every:
        run("sana", pipe, **encoding)
    torch.testing.assert_close(maps["turtle"], every.mean()[..., list(found.positions)].sum(-1))
