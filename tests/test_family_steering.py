"""Steering on every architecture against hand-written loops, in float64."""

import pytest
import torch

from attncontrol import Descent, Relative, Where, steer
from attncontrol.families.known import family_of
from attncontrol.losses import AttendAndExcite
from tests.kit.runs import ALL, HEIGHT, OPTIONS, PROMPTS, WIDTH, run
from tests.kit.zoo_chat import CHAT
from tests.reference.loops import Softmax, steered


def calls_of(name, pipe):
    """What the oracle needs: the model's prediction, the text sites, the picture's rows, the text
    columns, the token positions."""
    tokens = OPTIONS.get(name, {}).get("max_sequence_length")
    grid = (4, 6)
    if name == "sdxl":
        states, negative, pooled, no_pooled = pipe.encode_prompt(
            PROMPTS[0], negative_prompt="", do_classifier_free_guidance=True
        )
        ids = pipe._get_add_time_ids((HEIGHT, WIDTH), (0, 0), (HEIGHT, WIDTH), torch.float64, 32)

        def call(z, t, branch):
            cond = branch == "cond"
            added = {"text_embeds": pooled if cond else no_pooled, "time_ids": ids}
            text = states if cond else negative
            return pipe.unet(
                z, t, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False
            )[0]

        count = sum(name.endswith("attn2") for name, _ in pipe.unet.named_modules())
        return (
            call,
            range(1, 2 * count, 2),
            slice(None),
            slice(None),
            grid,
            [list(range(1, 31))],
            [3, 6, 7],
        )
    if name == "pixart":
        states, mask, negative, no_mask = pipe.encode_prompt(
            PROMPTS[0], max_sequence_length=tokens, clean_caption=False
        )

        def call(z, t, branch):
            cond = branch == "cond"
            text, keep = (states, mask) if cond else (negative, no_mask)
            added = {"resolution": None, "aspect_ratio": None}
            out = pipe.transformer(
                z,
                encoder_hidden_states=text,
                encoder_attention_mask=keep,
                timestep=t.expand(1),
                added_cond_kwargs=added,
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
                z, encoder_hidden_states=states if cond else negative,
                pooled_projections=pooled if cond else no_pooled, timestep=t.expand(1) / 1000,
                img_ids=ids, txt_ids=text_ids, return_dict=False,
            )[0]  # fmt: skip

        return call, (0, 1), slice(tokens, None), slice(tokens), grid, [list(range(7))], [2, 5, 6]
    states, negative, pooled, no_pooled = pipe.encode_prompt(
        PROMPTS[0], None, None, max_sequence_length=tokens
    )

    def call(z, t, branch):
        cond = branch == "cond"
        return pipe.transformer(
            z, timestep=t.expand(1), encoder_hidden_states=states if cond else negative,
            pooled_projections=pooled if cond else no_pooled, return_dict=False,
        )[0]  # fmt: skip

    joint = (0, 2, 4) if name == "sd35" else (0, 1, 2)
    encoders = [list(range(1, 8)), list(range(32, 39))]
    return call, joint, slice(24), slice(24, None), grid, encoders, [3, 6, 7, 34, 37, 38]


def chat_calls_of(name, pipe):
    """The same for models that read the prompt inside a template: the picture's rows and the tokens
    from the model's code."""
    grid, prompt = (4, 6), PROMPTS[0]
    words, subjects = (
        list(range(12)),
        [5, 10, 11],
    )  # a, then one letter each of red, cat, a, nd, a, tur, tle
    if name == "qwenimage":
        states, mask = pipe.encode_prompt(prompt, max_sequence_length=64)
        assert mask is None

        def call(z, t, _):
            return pipe.transformer(
                z,
                encoder_hidden_states=states,
                timestep=t.expand(1) / 1000,
                img_shapes=[[(1, 4, 6)]],
                return_dict=False,
            )[0]

        text = states.shape[1]
        return call, (0, 1), slice(text, None), slice(text), grid, [words], subjects
    if name == "lumina2":
        states, mask, negative, no_mask = pipe.encode_prompt(
            prompt, True, negative_prompt="", max_sequence_length=32, system_prompt="Paint."
        )

        def call(z, t, branch):
            text, keep = (states, mask) if branch == "cond" else (negative, no_mask)
            return -pipe.transformer(z, 1 - t.expand(1) / 1000, text, keep, return_dict=False)[0]

        text = int(mask.sum())
        words = list(range(text - 8, text - 1))
        return (
            call,
            (2, 3),
            slice(text, text + 24),
            slice(text),
            grid,
            [words],
            [text - 6, text - 3, text - 2],
        )
    if name == "zimage":
        (states,), (negative,) = pipe.encode_prompt(
            prompt, negative_prompt="", max_sequence_length=128
        )

        def call(z, t, branch):
            text = states if branch == "cond" else negative
            return -pipe.transformer(
                [z[0, :, None].double()], (1000 - t.expand(1)) / 1000, [text], return_dict=False
            )[0][0][:, 0]

        return (
            call,
            (2, 3),
            slice(24),
            slice(32, None),
            grid,
            [[6 + k for k in words]],
            [6 + k for k in subjects],
        )
    states, ids = pipe.encode_prompt(prompt, text_encoder_out_layers=(1,), max_sequence_length=96)
    negative, _ = pipe.encode_prompt("", text_encoder_out_layers=(1,), max_sequence_length=96)
    places = pipe._prepare_latent_ids(torch.zeros(1, 4, 4, 6))

    def call(z, t, branch):
        text = states if branch == "cond" else negative
        return pipe.transformer(z, text, t.expand(1) / 1000, places, ids, None, return_dict=False)[
            0
        ]

    return (
        call,
        (0, 1),
        slice(96, None),
        slice(96),
        grid,
        [[6 + k for k in words]],
        [6 + k for k in subjects],
    )


FLOW = ("flux", "qwenimage", "lumina2", "zimage", "klein")
SHAPES = {"flux": (1, 24, 16), "qwenimage": (1, 24, 16), "klein": (1, 4, 4, 6)}
SCALE = {"flux": "true_cfg_scale", "qwenimage": "true_cfg_scale"}


@pytest.mark.parametrize("guided_by_negative", [False, True])
@pytest.mark.parametrize(
    "name", ["sdxl", "sd3", "sd35", "flux", "pixart", "qwenimage", "lumina2", "zimage", "klein"]
)  # "sd" has an oracle in test_steer.py
def test_steering_equals_a_hand_written_loop(name, monkeypatch, guided_by_negative):
    if name == "qwenimage" and guided_by_negative:
        pytest.skip("its guidance is rescaled; the conditional call is the same")
    pipe = ALL[name]()
    where = Where(kind=("cross", "joint"), layers=("transformer_blocks",) if name == "flux" else ())
    scale = {SCALE.get(name, "guidance_scale"): 3.0 if guided_by_negative else 1.0}
    if name == "zimage":  # its scale counts from the conditional prediction
        scale = {"guidance_scale": scale["guidance_scale"] - 1}
    scale |= {"cfg_normalization": False} if name == "lumina2" else {}
    scale |= {} if name == "klein" else {"negative_prompt": "" if guided_by_negative else None}
    dtype = torch.float32 if name == "zimage" else torch.float64
    latents = torch.randn(
        SHAPES.get(name, (1, 4, 8, 12)), generator=torch.Generator().manual_seed(3), dtype=dtype
    )
    descent = Descent(step_size=20.0, guided=0.7, thresholds={})
    with steer(pipe, AttendAndExcite(["cat", "turtle"]), where=where, descent=descent) as trace:
        guided = run(name, pipe, steps=3, latents=latents.clone(), **scale)
    plain = run(name, pipe, steps=3, latents=latents.clone(), **scale)
    assert len(trace.steps) == 2
    softmax = Softmax(monkeypatch)
    with torch.no_grad():
        parts = (chat_calls_of if name in CHAT else calls_of)(name, pipe)
        pipe.scheduler.set_timesteps(3)
        if name in FLOW:
            pipe.scheduler.set_timesteps(sigmas=[1.0, 2 / 3, 1 / 3])
        z = latents.clone() * getattr(pipe.scheduler, "init_noise_sigma", 1.0)
        z = z.flatten(2).transpose(1, 2) if name == "klein" else z
        call, text_calls, rows, columns, grid, encoders, subjects = parts
        expected = steered(
            pipe, softmax, call, z, text_calls=text_calls, rows=rows, columns=columns, grid=grid,
            encoders=encoders, subjects=subjects, alpha=20.0, guided=2, scale=3.0,
            negative=guided_by_negative,
        )  # fmt: skip
    if (
        name == "klein"
    ):  # latents come back unpacked, and scaled by statistics that are 0 and 1 here
        grid_of = expected.transpose(1, 2).unflatten(2, grid)
        expected = pipe._unpatchify_latents(grid_of * (1 + pipe.vae.config.batch_norm_eps) ** 0.5)
    assert (guided - plain).abs().max() > 1e-3
    tolerance = 1e-4 if name == "zimage" else 1e-6  # parts of Z-Image compute in float32
    assert (guided - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize(("name", "size"), [("sd", 20.0), ("pixart", Relative(0.03))])
def test_steps_and_thresholds_are_those_of_papers_or_relative_without_refinement(name, size):
    pipe, words = ALL[name](), ["cat", "turtle"]
    if name == "sd":  # at the resolution of the papers' layers
        assert any(site.stride == 4 for site in family_of(pipe).sites(pipe.unet))
    with steer(pipe, AttendAndExcite(words)) as trace:
        run(name, pipe)
    assert trace.step_size == size
    assert (trace.steps[0].refinements[0] > 0) == (name == "sd")
    for most, taken in ((None, 20 if name == "sd" else 0), (4, 4)):
        descent = Descent(thresholds={0.0: 2.0}, max_refinements=most)
        with steer(pipe, AttendAndExcite(words), descent=descent) as trace:
            run(name, pipe)
        assert trace.steps[0].refinements == (taken,)
