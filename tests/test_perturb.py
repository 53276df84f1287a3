"""Edits against written-out matrices; perturbation guidance against diffusers' pipelines and
hand-written sums."""

import math
from contextlib import nullcontext

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusion3PAGPipeline, StableDiffusionPAGPipeline

from attncontrol import Descent, Where, record, steer
from attncontrol.attention.blur import blur
from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.sites import Site
from attncontrol.edits import (
    FisherRao,
    LogLinear,
    SkipAttention,
    SkipLayers,
    SmoothedQuery,
    SoftIdentity,
    SoftUniform,
    Temperature,
)
from attncontrol.errors import SettingError, SiteError
from attncontrol.families.known import family_of
from attncontrol.losses import AttendAndExcite
from attncontrol.running.reuse import Prefix
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.places import On, PerImage
from tests.kit.moments import moment, output_of
from tests.kit.runs import ALL, run
from tests.kit.tapping import tap
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import flux, sd3
from tests.reference import edits as slow

GRID, TEXT = (3, 5), 4
LAYOUT = Layout(GRID, slice(TEXT, None), slice(TEXT))
PICTURE = LAYOUT.image


def call(seed=0):
    rng = torch.Generator().manual_seed(seed)
    query, key, value = (
        2 * torch.randn(2, 3, TEXT + 15, 8, generator=rng, dtype=torch.float64) for _ in range(3)
    )
    return AttentionCall(Site("somewhere", "joint", 3, 2), query, key, value)


EDITS = {
    "identity": (SoftIdentity(), lambda _q, _k, v: v),
    "soft identity": (SoftIdentity(0.3), lambda q, k, v: slow.soft_identity(q, k, v, 0.3)),
    "picture identity": (
        SoftIdentity(scope="picture"),
        lambda q, k, v: slow.soft_identity_in_the_picture(q, k, v, 1.0, PICTURE),
    ),
    "soft picture": (
        SoftIdentity(0.4, scope="picture"),
        lambda q, k, v: slow.soft_identity_in_the_picture(q, k, v, 0.4, PICTURE),
    ),
    "uniform": (SoftUniform(0.6), lambda q, k, v: slow.soft_uniform(q, k, v, 0.6)),
    "small blur": (
        SmoothedQuery(0.4),
        lambda q, k, v: slow.smoothed_query(q, k, v, 1.0, 0.4, GRID, PICTURE),
    ),
    "wide blur": (
        SmoothedQuery(3.0, 0.5),
        lambda q, k, v: slow.smoothed_query(q, k, v, 0.5, 3.0, GRID, PICTURE),
    ),
    "mean query": (
        SmoothedQuery(),
        lambda q, k, v: slow.smoothed_query(q, k, v, 1.0, math.inf, GRID, PICTURE),
    ),
    "mean of all": (
        SmoothedQuery(scope="all"),
        lambda q, k, v: slow.smoothed_query(q, k, v, 1.0, math.inf, (1, 19), slice(None)),
    ),
    "warm": (Temperature(2.5), lambda q, k, v: slow.temperature(q, k, v, 2.5)),
    "max": (Temperature(0.0), lambda q, k, v: slow.temperature(q, k, v, 0)),
    "log-linear": (LogLinear(0.35), lambda q, k, v: slow.log_linear(q, k, v, 0.35)),
    "log-linear, to the end": (LogLinear(), lambda _q, _k, v: v),
    "Fisher-Rao": (FisherRao(0.35), lambda q, k, v: slow.fisher_rao(q, k, v, 0.35)),
    "nothing": (SkipAttention(), lambda _q, _k, v: 0 * v),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_equal_the_written_out_matrices(name):
    edit, restated = EDITS[name]
    each = call()
    expected = torch.stack(
        [
            torch.stack(
                [restated(each.query[b, h], each.key[b, h], each.value[b, h]) for h in range(3)]
            )
            for b in range(2)
        ]
    )
    now = moment(LAYOUT, images=2)
    torch.testing.assert_close(output_of(edit(each, now)), expected, rtol=0, atol=1e-10)
    some = output_of(edit(each.of_heads([2, 0]), now))
    torch.testing.assert_close(some, expected[:, [2, 0]], rtol=0, atol=1e-10)


@pytest.mark.parametrize("grid", [(2, 4), (8, 5), (15, 16)])
@pytest.mark.parametrize("sigma", [0.4, 2.0, 10.0, 100.0])
def test_blur_has_the_official_kernel_on_every_grid(grid, sigma):
    rng = torch.Generator().manual_seed(0)
    query = torch.randn(2, 3, math.prod(grid), 2, generator=rng, dtype=torch.float64)
    cells = query.movedim(2, 0).unflatten(0, grid)
    expected = slow.smoothed(cells, sigma).flatten(0, 1).movedim(0, 2)
    torch.testing.assert_close(blur(query, grid, sigma), expected, rtol=0, atol=1e-12)
    dot = torch.zeros(1, 1, 64, 1, dtype=torch.float64)
    dot[0, 0, 8 * 4] = 1
    assert (blur(dot, (8, 8), 10.0)[0, 0, ::8, 0] > 0).all()  # nine taps: also four cells away


@pytest.mark.parametrize(
    "edit",
    [
        SoftIdentity(0.0),
        SoftUniform(0.0),
        SmoothedQuery(u=0.0),
        LogLinear(0.0),
        FisherRao(0.0),
        Temperature(1.0),
    ],
)
def test_no_strength_is_the_plain_call(edit):
    assert not edit.acts(0.5)
    plain, unchanged = call().run(), output_of(edit(call(), moment(LAYOUT, images=2)))
    torch.testing.assert_close(unchanged, plain, rtol=0, atol=1e-12)


def test_cross_attention_has_no_identity():
    cross = AttentionCall(
        Site("there", "cross", 3, 2),
        torch.randn(1, 3, 6, 8),
        torch.randn(1, 3, 4, 8),
        torch.randn(1, 3, 4, 8),
    )
    with pytest.raises(SiteError, match="there attends from 6 to 4 other positions"):
        SoftIdentity()(cross, moment(Layout((2, 3))))


MIDDLE = Where(kind="self", layers=("mid_block",))


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_equals_the_pag_pipeline_of_diffusers(guidance):
    source = tiny_sd()
    theirs = StableDiffusionPAGPipeline(
        **source.components, pag_applied_layers=["mid"], requires_safety_checker=False
    )
    theirs.set_progress_bar_config(disable=True)
    options = {
        "num_inference_steps": 3, "guidance_scale": guidance, "output_type": "latent", "height": 64,
        "width": 96, "num_images_per_prompt": 2,
    }  # fmt: skip
    expected = theirs(
        prompt="a cat and a frog",
        generator=torch.Generator().manual_seed(0),
        pag_scale=3.0,
        **options,
    ).images
    with perturb(source, SoftIdentity(), scale=3.0, where=MIDDLE):
        ours = source(
            prompt="a cat and a frog", generator=torch.Generator().manual_seed(0), **options
        ).images
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)
    plain = source(
        prompt="a cat and a frog", generator=torch.Generator().manual_seed(0), **options
    ).images
    assert (ours - plain).abs().max() > 1e-3


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_equals_the_pag_pipeline_for_sd3(guidance):
    source = sd3()
    parts = {
        k: v
        for k, v in source.components.items()
        if k not in ("image_encoder", "feature_extractor")
    }
    theirs = StableDiffusion3PAGPipeline(**parts, pag_applied_layers=["blocks.1"])
    theirs.set_progress_bar_config(disable=True)
    options = {
        "num_inference_steps": 3, "guidance_scale": guidance, "output_type": "latent", "height": 64,
        "width": 96, "max_sequence_length": 16,
    }  # fmt: skip
    expected = theirs(
        prompt="a cat and a frog",
        generator=torch.Generator().manual_seed(0),
        pag_scale=2.0,
        **options,
    ).images
    where = Where(kind="joint", layers=("transformer_blocks.1",))
    with perturb(source, SoftIdentity(scope="picture"), scale=2.0, where=where):
        ours = source(
            prompt="a cat and a frog", generator=torch.Generator().manual_seed(0), **options
        ).images
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)


ANYWHERE = Where(kind=("self", "joint"))


@pytest.mark.parametrize("name", [n for n in ALL if n != "sana"])
def test_every_family(name):
    pipe = ALL[name]()
    plain = run(name, pipe)
    with perturb(pipe, SoftIdentity(0.5), scale=2.0, where=ANYWHERE), record(pipe, ["cat"]) as maps:
        weakened = run(name, pipe)
    assert (weakened - plain).abs().max() > 1e-5
    assert weakened.isfinite().all()
    assert maps["cat"].isfinite().all()
    for edit, scale, heads in (
        (SoftIdentity(0.0), 2.0, None),
        (SoftIdentity(), 0.0, None),
        (SoftIdentity(), 2.0, PerImage(((),))),
    ):
        with perturb(pipe, edit, scale=scale, where=ANYWHERE, heads=heads):
            assert torch.equal(run(name, pipe), plain)
    assert torch.equal(run(name, pipe), plain)


@pytest.mark.parametrize("name", [n for n in ALL if n != "sana"])
def test_blocks_before_the_change_run_once(name, monkeypatch):
    pipe, counts, kept = ALL[name](), [], []
    denoiser = family_of(pipe).denoiser(pipe)
    last = ANYWHERE.select(family_of(pipe).sites(denoiser))[-1].name
    first = next(
        of[0] for of in denoiser.children() if isinstance(of, torch.nn.ModuleList) and len(of)
    )
    ran = 0

    def count(*_):
        nonlocal ran
        ran += 1

    next(module for module in first.modules() if not list(module.children())).register_forward_hook(
        count
    )
    options = {"negative_prompt": "a", "true_cfg_scale": 3.0} if name == "flux" else {}
    for sharing in (True, False):
        if not sharing:
            monkeypatch.setattr(Prefix, "again", lambda *_: nullcontext())
        with perturb(pipe, SoftIdentity(0.5), scale=2.0, where=Where(layers=(last,))):
            kept.append(run(name, pipe, **options))
        counts.append(ran)
    shared, all_of_them = counts[0], counts[1] - counts[0]
    assert shared > 0
    assert all_of_them - shared in (shared, shared // 2)  # of two calls per step one is conditional
    torch.testing.assert_close(
        kept[0], kept[1], rtol=0, atol=1e-5 if name == "hunyuandit" else 1e-8
    )
    assert not any("forward" in vars(module) for module in denoiser.modules())


def predictions(pipe, edit_in):
    """The conditional prediction at the first step, plain and with an edit, by hand."""
    found = []
    hook = pipe.transformer.register_forward_hook(lambda *a: found.append(a[-1][0]))
    run("flux", pipe, steps=1)
    with edit_in:
        run("flux", pipe, steps=1)
    hook.remove()
    return found


def test_heads_are_perturbed_one_by_one():
    pipe = flux()
    name = "transformer_blocks.0.attn"
    site = {s.name: s for s in family_of(pipe).sites(pipe.transformer)}[name]

    def by_hand(attention):
        output = attention.run().clone()
        output[:, 1] = attention.value[:, 1]
        return output

    base, edited = predictions(pipe, tap(pipe.transformer, {name: site}, by_hand))
    found = []
    with perturb(pipe, SoftIdentity(), scale=1.5, heads=[(name, 1)]):
        hook = pipe.transformer.register_forward_hook(lambda *a: found.append(a[-1][0]))
        run("flux", pipe, steps=1)
        hook.remove()
    torch.testing.assert_close(found[0], base + 1.5 * (base - edited), rtol=0, atol=1e-10)
    groups = [
        On(SoftIdentity(), heads=[(name, 1)]),
        On(SoftUniform(), heads=[(name, 0), ("single_transformer_blocks.1.attn", 1)]),
    ]
    with perturb(pipe, groups, scale=1.5):
        both = run("flux", pipe)
    with perturb(pipe, groups[:1], scale=1.5):
        first = run("flux", pipe)
    assert (both - first).abs().max() > 1e-5


def test_true_guidance_in_two_calls_gets_the_same_difference():
    pipe = flux()
    options = {"negative_prompt": "", "true_cfg_scale": 3.0, "steps": 1}
    found = []
    pipe.transformer.register_forward_hook(lambda *a: found.append(a[-1][0]))
    run("flux", pipe, **options)
    plain = list(found)
    found.clear()
    with perturb(pipe, SoftIdentity(), scale=2.0, where=ANYWHERE):
        pipe.transformer.register_forward_hook(lambda *a: found.append(a[-1][0]))
        run("flux", pipe, **options)
    changed = found[1::2]
    torch.testing.assert_close(changed[0] - plain[0], changed[1] - plain[1], rtol=0, atol=1e-10)
    assert (changed[0] - plain[0]).abs().max() > 1e-4


def test_settings_may_follow_the_progress():
    pipe = tiny_sd()
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    seen = []

    def u(progress):
        seen.append(progress)
        return 1.0 - progress

    with perturb(pipe, SoftIdentity(u), scale=lambda progress: 2.0 * progress, where=MIDDLE):
        moving = run("sd", pipe, steps=3)
    assert sorted(set(seen)) == [0.0, 0.5, 1.0]
    with perturb(
        pipe, SoftIdentity(0.5), scale=lambda progress: float(progress == 0.5), where=MIDDLE
    ):
        middle = run("sd", pipe, steps=3)
    torch.testing.assert_close(moving, middle)
    with perturb(pipe, SoftIdentity(0.5), scale=1.0, where=MIDDLE, steps=(0.4, 0.6)):
        torch.testing.assert_close(run("sd", pipe, steps=3), middle)


def test_rescaling_keeps_the_deviation_of_the_conditional_prediction():
    pipe = flux()
    base, changed = [], []
    hook = pipe.transformer.register_forward_hook(lambda *a: base.append(a[-1][0]))
    run("flux", pipe, steps=1)
    hook.remove()
    with perturb(pipe, SoftIdentity(), scale=20.0, where=ANYWHERE, rescale=1.0):
        hook = pipe.transformer.register_forward_hook(lambda *a: changed.append(a[-1][0]))
        run("flux", pipe, steps=1)
        hook.remove()
    torch.testing.assert_close(changed[0].std(), base[0].std())
    assert (changed[0] - base[0]).abs().max() > 1e-3


def test_it_composes_with_steering():
    pipe = tiny_sd()
    descent = Descent(step_size=20.0, thresholds={}, guided=1.0)
    kept = []
    for order in (0, 1):
        contexts = [
            lambda: steer(
                pipe, AttendAndExcite(["cat", "turtle"]), where=Where(kind="cross"), descent=descent
            ),
            lambda: perturb(pipe, SoftIdentity(), scale=3.0, where=MIDDLE),
        ]
        with contexts[order](), contexts[1 - order]():
            kept.append(run("sd", pipe))
    torch.testing.assert_close(kept[0], kept[1])


def test_skipped_layers_equal_the_sd3_pipeline_of_diffusers():
    pipe = sd3()
    options = {
        "num_inference_steps": 4, "output_type": "latent", "height": 64, "width": 96,
        "max_sequence_length": 16, "guidance_scale": 4.0, "num_images_per_prompt": 2,
    }  # fmt: skip
    theirs = {
        "skip_guidance_layers": [1],
        "skip_layer_guidance_scale": 2.5,
        "skip_layer_guidance_start": 0.2,
    }
    expected = pipe(
        "a cat",
        generator=torch.Generator().manual_seed(0),
        skip_layer_guidance_stop=0.6,
        **theirs,
        **options,
    ).images
    with perturb(
        pipe, SkipLayers(("transformer_blocks.1",)), scale=2.5, steps=(0.3, 0.7)
    ):  # the steps 1 and 2 of 0 .. 3
        ours = pipe("a cat", generator=torch.Generator().manual_seed(0), **options).images
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)
    plain = pipe("a cat", generator=torch.Generator().manual_seed(0), **options).images
    assert (ours - plain).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_skipped_layers_equal_a_model_without_them(name):
    """e + w (e - e') where e' is the prediction after the blocks were taken out of the model."""
    layers = (
        ("transformer_blocks.0", "single_transformer_blocks.1")
        if name == "flux"
        else ("transformer_blocks.1",)
    )
    pipe, kept = ALL[name](), []
    denoiser = family_of(pipe).denoiser(pipe)
    with perturb(pipe, SkipLayers(layers), scale=2.0):
        denoiser.register_forward_hook(
            lambda _m, _a, kwargs, out: kept.append((kwargs, out[0].clone())), with_kwargs=True
        )
        run(name, pipe, steps=1, guidance_scale=1.0)
    arguments, found = kept[0]
    full = denoiser.forward(**arguments)[0]
    for path in layers:
        parent, _, number = path.rpartition(".")
        del denoiser.get_submodule(parent)[int(number)]
    without = denoiser.forward(**arguments)[0]
    torch.testing.assert_close(found, full + 2 * (full - without))


def test_blocks_are_selected_by_whole_names():
    """ "transformer_blocks.1" is not transformer_blocks.10."""
    names = [f"transformer_blocks.{k}.attn" for k in range(12)]
    sites = [Site(name, "joint", 2, 2) for name in names]
    assert [site.name for site in Where(layers=("transformer_blocks.1",)).select(sites)] == [
        names[1]
    ]


def test_clear_errors():
    pipe = tiny_sd()
    with (
        pytest.raises(SiteError, match="say which attention to change"),
        perturb(pipe, SoftIdentity(), scale=1.0),
    ):
        pass
    name = "mid_block.attentions.0.transformer_blocks.0.attn1"
    with (
        pytest.raises(SiteError, match=f"there is no head 9 at '{name}'"),
        perturb(pipe, SoftIdentity(), scale=1.0, heads=[(name, 9)]),
    ):
        pass
    with (
        pytest.raises(SiteError, match="no identity"),
        perturb(pipe, SoftIdentity(), scale=1.0, where=Where(kind="cross")),
    ):
        run("sd", pipe)
    missing = SkipLayers(("blocks.1",))
    with (
        pytest.raises(SiteError, match=r"no block 'blocks\.1'; blocks are: transform"),
        perturb(sd3(), missing, scale=1.0),
    ):
        pass
    with pytest.raises(SettingError, match="sigma is a number of cells above 0"):
        SmoothedQuery(0.0)
