"""Losses of videos: the mean over the frames, each of which is a picture to the loss. Against
hand-written loops, and against the attention of the model, in float64."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    LTXImageToVideoPipeline,
    LTXVideoTransformer3DModel,
)
from PIL import Image

from attncontrol import Descent, steer
from attncontrol.attention.sites import Where
from attncontrol.errors import SchedulerError
from attncontrol.families import has_transformer, known, ltx
from attncontrol.losses import AttendAndExcite
from attncontrol.objectives.objective import Objective
from tests.kit.objectives import CLASSES, made
from tests.kit.runs import ALL, PROMPTS, run
from tests.kit.zoo_videos import mochi, wan22_large
from tests.reference.loops import Softmax, steered

WORDS = ["cat", "turtle"]
TWO = ["a red cat and a frog", "a frog and a red cat"]
SHAPES = {"wan": (1, 4, 2, 8, 12), "cogvideox": (1, 3, 4, 8, 12), "ltx": (1, 72, 4)}
STEPS = Descent(step_size=20.0, guided=0.7, thresholds={})


def calls_of(name, pipe):
    """What the oracle needs, from the models' code: the model's prediction, the text sites, the
    picture's rows, the text columns, the grid."""
    options = {"max_sequence_length": 16, "negative_prompt": ""}
    if name == "ltx":
        states, mask, negative, no_mask = pipe.encode_prompt(PROMPTS[0], **options)

        def call(z, t, branch):
            text, keep = (states, mask) if branch == "cond" else (negative, no_mask)
            scale = (4 / 25, 16, 16)
            return pipe.transformer(
                z, text, t.expand(1), keep, 3, 4, 6, rope_interpolation_scale=scale,
                return_dict=False,
            )[0]  # fmt: skip

        return call, (1, 3), slice(None), slice(None), (3, 4, 6)
    states, negative = pipe.encode_prompt(PROMPTS[0], **options)
    if name == "wan":

        def call(z, t, branch):
            text = states if branch == "cond" else negative
            return pipe.transformer(z, t.expand(1), text, return_dict=False)[0]

        return call, (1, 3), slice(None), slice(None), (2, 4, 6)
    rotations = pipe._prepare_rotary_positional_embeddings(64, 96, 3, "cpu")

    def call(z, t, branch):
        text = states if branch == "cond" else negative
        return pipe.transformer(
            z, text, t.expand(1), image_rotary_emb=rotations, return_dict=False
        )[0].float()  # as the pipeline does

    return call, (0, 1), slice(16, None), slice(16), (3, 4, 6)


@pytest.mark.parametrize("name", SHAPES)
def test_steering_equals_a_hand_written_loop(name, monkeypatch):
    pipe = ALL[name]()
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(SHAPES[name], generator=generator, dtype=torch.float64)
    given = {"guidance_scale": 3.0, "negative_prompt": "", "latents": latents, "steps": 3}
    given |= {"attention_kwargs": None} if name == "wan" else {}
    objective = AttendAndExcite(WORDS)
    with steer(pipe, objective, where=Where(kind=("cross", "joint")), descent=STEPS) as trace:
        guided = run(name, pipe, **given)
    plain = run(name, pipe, **given)
    assert len(trace.steps) == 2
    softmax = Softmax(monkeypatch)
    with torch.no_grad():
        call, text_calls, rows, columns, grid = calls_of(name, pipe)
        pipe.scheduler._step_index = None  # the schedule is that of the run before
        expected = steered(
            pipe, softmax, call, latents.clone(), text_calls=text_calls, rows=rows, columns=columns,
            grid=grid, encoders=[list(range(7))], subjects=[2, 5, 6], alpha=20.0, guided=2,
            scale=3.0, negative=True,
        )  # fmt: skip
    assert (guided - plain).abs().max() > 1e-3
    assert (guided - expected).abs().max() < 1e-6 * expected.abs().max()


class Kept(Objective):
    """Keeps what it sees of every frame."""

    self_attention = features = remembers = True

    def __init__(self):
        self.seen = []

    def __call__(self, maps):
        self.seen.append(maps)
        return maps.mean().flatten(1).square().sum(1)


def test_frames_are_those_of_the_attention(monkeypatch):
    """Of two videos; attention among cells is that within a frame."""
    pipe, kept = ALL["wan"](), Kept()
    still = Descent(step_size=0.0, guided=1.0, thresholds={})
    with steer(pipe, kept, where=Where(kind="cross"), descent=still) as trace:
        run("wan", pipe, TWO)
    softmax, outputs = Softmax(monkeypatch), []
    for block in pipe.transformer.blocks:
        block.attn1.to_out[0].register_forward_pre_hook(lambda _, args: outputs.append(args[0]))
    run("wan", pipe, TWO)
    of_videos = [p for p in softmax.seen if p.shape[2] == 48]
    conditional = [of_videos[k : k + 4] for k in (0, 8)]
    of_steps = [outputs[k : k + 2] for k in (0, 4)]
    assert len(kept.seen) == 4
    for step, (of_text, of_cells) in enumerate(zip(conditional, of_steps, strict=True)):
        expected = []
        for frame, maps in enumerate(kept.seen[2 * step : 2 * step + 2]):
            rows = slice(24 * frame, 24 * frame + 24)
            for block in (0, 1):
                shares = of_text[2 * block + 1][:, :, rows, :6].unflatten(2, (4, 6))
                torch.testing.assert_close(maps.layers[f"blocks.{block}.attn2"], shares)
                among = of_text[2 * block].mean(1)[:, rows, rows]
                among = (among / among.sum(-1, keepdim=True)).unflatten(1, (4, 6))
                found = maps.pictures[f"blocks.{block}.attn1"].flatten(3)
                torch.testing.assert_close(found, among)
                features = of_cells[block][:, rows].unflatten(1, (4, 6))
                torch.testing.assert_close(maps.features[f"blocks.{block}.attn1"], features)
            expected.append(maps.mean().flatten(1).square().sum(1))
            before = kept.seen[2 * step - 2 + frame].mean() if step else None
            assert step == 0 or torch.equal(maps.previous, before)
            assert step == 1 or maps.previous is None
        mean = torch.stack(expected).mean(0).tolist()
        assert trace.steps[step].losses == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("name", sorted({*CLASSES} - {"InitNO"}))  # which searches, with the next
def test_every_loss_moves_a_video(name):
    """The second of two: some losses compare with the first, or with the step before."""
    pipe, always = ALL["wan"](), Descent(guided=1.0, thresholds={})
    with steer(pipe, made(name), descent=always) as trace:
        latents = run("wan", pipe, [TWO[0]] * 2)
    assert trace.steps[1].moves[1] > 0
    assert latents.isfinite().all()


def strength(maps):
    """Of the first tokens."""
    return maps.mean()[..., :3].sum(-1).square().flatten(1).sum(1)


FIRST = Descent(step_size=20.0, final=1.0, thresholds={})


@contextmanager
def caught(*denoisers):
    """Their calls, with what contexts that are open have made of them."""
    calls = []

    def hear(module, _, kwargs):
        calls.append((module, kwargs))

    hooks = [part.register_forward_pre_hook(hear, with_kwargs=True) for part in denoisers]
    yield calls
    for hook in hooks:
        hook.remove()


def gradient_of(denoiser, arguments, monkeypatch, tokens):
    """Of ``strength``, by hand: the mean over two frames."""
    softmax, leaf = Softmax(monkeypatch), arguments["hidden_states"].clone().requires_grad_()
    denoiser(**arguments | {"hidden_states": leaf})
    monkeypatch.undo()
    shares = [p[0, :, :48, tokens] for p in softmax.seen if p.shape[2] >= 48 != p.shape[3]]
    loss = torch.stack(shares).mean((0, 1)).sum(-1).square().sum() / 2
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def test_of_two_denoisers_the_one_that_runs_is_looked_at(monkeypatch):
    """The second begins in the second of three steps."""
    pipe = wan22_large()
    parts = {"transformer": pipe.transformer, "transformer_2": pipe.transformer_2}
    with caught(*parts.values()) as plain:
        run("wan", pipe, steps=3)
    assert [part is pipe.transformer_2 for part, _ in plain] == [False] * 2 + [True] * 4
    steps = Descent(step_size=20.0, final=1.0, guided=0.7, thresholds={})
    with steer(pipe, strength, descent=steps) as trace:
        run("wan", pipe, steps=3)
    assert [step.index for step in trace.steps] == [0, 1]
    late = Where(kind="cross", layers=("transformer_2",))
    early = Descent(step_size=20.0, guided=0.3, thresholds={})
    with (
        pytest.warns(UserWarning, match="none of the chosen sites ran in a guided step"),
        steer(pipe, strength, where=late, descent=early) as trace,
    ):
        run("wan", pipe, steps=3)
    assert not trace.steps
    for number, (name, part) in enumerate(parts.items()):
        where = Where(kind="cross", layers=(name,))
        with (
            steer(pipe, strength, where=where, descent=steps) as trace,
            caught(*parts.values()) as moved,
        ):
            run("wan", pipe, steps=3)
        assert [step.index for step in trace.steps] == [number]
        arguments = plain[2 * number][1]
        change = moved[2 * number][1]["hidden_states"] - arguments["hidden_states"]
        gradient = gradient_of(part, arguments, monkeypatch, slice(3))
        torch.testing.assert_close(change, -20 * gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.filterwarnings("ignore:In CPU autocast")
def test_rows_of_mochi_that_are_computed_alone_have_their_gradient(monkeypatch):
    pipe = mochi()
    options = {"num_frames": 7, "max_sequence_length": 16, "guidance_scale": 1.0}
    with caught(pipe.transformer) as plain:
        run("mochi", pipe, **options)
    with steer(pipe, strength, descent=FIRST), caught(pipe.transformer) as moved:
        run("mochi", pipe, **options)
    change = moved[0][1]["hidden_states"] - plain[0][1]["hidden_states"]
    gradient = gradient_of(pipe.transformer, plain[0][1], monkeypatch, slice(48, 51))
    assert float(change.abs().max()) > 1e-4
    torch.testing.assert_close(change, -20 * gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("scheduler", [CogVideoXDPMScheduler, CogVideoXDDIMScheduler])
def test_a_move_of_the_first_step_enters_what_the_solver_makes(scheduler):
    """The same as latents that are moved by hand before the run, from which the first step's
    network and solver both start."""
    pipe = ALL["cogvideox"]()
    pipe.scheduler = scheduler()
    latents = torch.randn(SHAPES["cogvideox"], generator=torch.Generator().manual_seed(3)).double()
    options = {"guidance_scale": 1.0, "steps": 2}
    with steer(pipe, strength, descent=FIRST), caught(pipe.transformer) as moved:
        guided = run("cogvideox", pipe, latents=latents, **options)
    start = moved[0][1]["hidden_states"]
    assert float((start - latents).abs().max()) > 1e-4
    torch.testing.assert_close(guided, run("cogvideox", pipe, latents=start.clone(), **options))


def test_given_frames_among_the_latents_are_refused_where_the_scheduler_leaves_them_out(
    monkeypatch,
):
    """Of a pipeline of which nobody has said that it does; of this one its family does."""
    of_any = replace(ltx.FAMILY, matches=has_transformer(LTXVideoTransformer3DModel))
    monkeypatch.setattr(known, "FAMILIES", [of_any, *known.FAMILIES])
    parts = ALL["ltx"]().components
    pipe = LTXImageToVideoPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    picture = Image.new("RGB", (96, 64))
    refused = pytest.raises(SchedulerError, match=r"shape \(1, 4, 2, 4, 6\), but .*\(1, 72, 4\)")
    with refused, steer(pipe, strength, descent=FIRST):
        run("ltx", pipe, image=picture)
    with steer(pipe, strength, descent=Descent(guided=0.0, thresholds={})):
        assert run("ltx", pipe, image=picture).isfinite().all()
