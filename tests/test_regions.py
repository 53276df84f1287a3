"""``Regions``: whole runs against loops over cells, beside other edits, adapters and contexts."""

from contextlib import ExitStack

import pytest
import torch
from peft import LoraConfig

import attncontrol.edits._joined
from attncontrol import Descent, record, steer
from attncontrol.attention.sites import TEXT, Where
from attncontrol.edits import KeyMask, Regions, Replace, Reweight
from attncontrol.errors import CouplingError, SettingError, WordError
from attncontrol.losses import AttendAndExcite
from attncontrol.verbs.edit import edit
from attncontrol.verbs.places import On
from tests.kit.runs import run
from tests.kit.tiny import with_controlnet
from tests.kit.zoo import ZOO
from tests.reference import editing as slow
from tests.reference import regions as loops

TOTAL, GRIDS = 2, {96: (8, 12), 24: (4, 6), 6: (2, 3)}
PROMPTS = ["a cat and a frog", "a dog and a frog", "a cat and a blue turtle"]
CAT, FROG, DOG = "a red cat", "a green frog", "a dog"
LEFT, RIGHT, MIDDLE = (0.0, 0.0, 0.5, 0.6), (0.5, 0.3, 1.0, 1.0), (0.2, 0.1, 0.8, 0.4)
MASK = torch.zeros(8, 12)
MASK[2:5, 3:7] = 1
OWN = {"sd": 32, "sdxl": 32, "sd3": 48, "sd35": 48, "flux": 16, "pixart": 16}
ONE_CALL, TWO_CALLS, OFF = (("uncond", "cond"),), (("cond",), ("uncond",)), (("cond",),)
OVERLAPPING = Regions(
    [(CAT, LEFT), (FROG, RIGHT), (CAT, MIDDLE)], base=0.3, negatives={DOG: LEFT}, images=(0, 2)
)
GUIDED = {"guidance_scale": 3.0}
CALLS = {
    "sd": ("sd", OFF, {"guidance_scale": 1.0}, Regions({CAT: LEFT, FROG: RIGHT})),
    "sd guided": ("sd", ONE_CALL, GUIDED | {"negative_prompt": ["a turtle"] * 3}, OVERLAPPING),
    "sdxl": ("sdxl", ONE_CALL, GUIDED, OVERLAPPING),
    "sd3": ("sd3", OFF, {"guidance_scale": 1.0}, Regions({CAT: LEFT, FROG: MASK}, base=0.0)),
    "sd3 guided": ("sd3", ONE_CALL, GUIDED, OVERLAPPING),
    "sd35": ("sd35", ONE_CALL, GUIDED, Regions({CAT: LEFT, FROG: RIGHT}, until=0.7)),
    "flux": ("flux", OFF, {}, Regions({CAT: LEFT, FROG: MASK}, separate=True, until=0.7)),
    "flux guided": (
        "flux", TWO_CALLS, {"true_cfg_scale": 3.0, "negative_prompt": [""] * 3}, OVERLAPPING,
    ),
    "pixart": ("pixart", ONE_CALL, GUIDED, OVERLAPPING),
}  # fmt: skip


@pytest.fixture(scope="module")
def pipes():
    return {name: make() for name, make in ZOO.items()}


def share_of(region):
    if region is MASK:  # whose side is twice or four times that of a coarser grid
        return lambda y, x, grid: float(
            MASK[
                y * 8 // grid[0] : (y + 1) * 8 // grid[0],
                x * 12 // grid[1] : (x + 1) * 12 // grid[1],
            ].mean()
        )
    return loops.of_box(*region)


def by_hand(pipe, name, branches, what, sites=None, **call):
    pairs = {
        branch: [(text, share_of(region)) for text, region in dict_or_list(of)]
        for branch, of in (("cond", what.regions), ("uncond", what.negatives))
    }
    with loops.texts_after(pipe, name, what.texts) as places:
        oracle = loops.Couples(
            places, OWN[name], pairs, what.base, what.images or (0, 1, 2), int(what.until * TOTAL),
            what.separate, sites,
        )  # fmt: skip
        texts = OWN[name] + sum(map(len, places.values()))
        with slow.written_out(
            pipe, oracle, images=3, total=TOTAL, branches=branches, grids=GRIDS, texts=texts,
            picture_first=name != "flux",
        ):  # fmt: skip
            return made(name, pipe, **call)


def dict_or_list(of):
    return list(of.items() if isinstance(of, dict) else of)


def made(name, pipe, prompts=PROMPTS, steps=TOTAL, **call):
    return run(name, pipe, prompts, steps=steps, seed=list(range(len(prompts))), **call)


@pytest.mark.parametrize("case", CALLS)
def test_whole_runs_are_those_of_loops_over_cells(pipes, case):
    name, branches, call, what = CALLS[case]
    pipe = pipes[name]
    plain = made(name, pipe, **call)
    with edit(pipe, what):
        edited = made(name, pipe, **call)
    expected = by_hand(pipe, name, branches, what, **call)
    assert (edited - expected).abs().max() < 1e-6 * plain.abs().max()
    assert (edited - plain).abs().amax(tuple(range(1, plain.ndim))).min() > 1e-4 or what.images
    torch.testing.assert_close(edited[1], plain[1], rtol=0, atol=1e-9) if what.images else None


HALVES = {CAT: (0.0, 0.0, 0.5, 1.0), FROG: (0.5, 0.0, 1.0, 1.0)}


def inside(pipe, *contexts, name="sd", prompts=PROMPTS, **call):
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(edit(pipe, context) if not hasattr(context, "gen") else context)
        return made(name, pipe, prompts, **call)


def same(one, other, tolerance=1e-9):
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def test_some_layers_and_steps_are_edited_alone(pipes):
    what, where = Regions(HALVES), Where(kind="joint", layers=("transformer_blocks.1",))
    with edit(pipes["flux"], what, where=where, steps=(0.0, 0.5)):
        edited = made("flux", pipes["flux"])
    half = Regions(HALVES, until=0.7)  # one step of two
    expected = by_hand(
        pipes["flux"], "flux", OFF, half, lambda at: at.name.startswith("transformer_blocks.1.")
    )
    same(edited, expected, 1e-7)


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_pictures_have_regions_of_their_own_with_the_same_texts(pipes, name):
    pipe, swapped = pipes[name], dict(zip(HALVES, reversed(HALVES.values()), strict=True))
    first, last = Regions(HALVES, images=(0,)), Regions(swapped, base=0.0, images=(2,))
    both = inside(pipe, first, last, name=name)
    same(both[0], inside(pipe, first, name=name)[0])
    same(both[2], inside(pipe, last, name=name)[2])
    same(both[1], made(name, pipe)[1])


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_masks_are_made_for_some_queries_at_a_time(pipes, name, monkeypatch):
    what = Regions(HALVES, separate=True)
    whole = inside(pipes[name], what, name=name)
    monkeypatch.setattr(attncontrol.edits._joined, "_MASK", 700)
    same(inside(pipes[name], what, name=name), whole)
    inner = KeyMask((0.0, 0.0, 0.5, 0.5), images=(1,))  # sees whole calls
    around = inside(pipes[name], what, inner, name=name)
    same(around[[0, 2]], whole[[0, 2]])
    assert (around[1] - whole[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["sd", "sd3"])
def test_other_edits_change_the_prompt_inside_and_outside(pipes, name):
    """A region with nothing of its own is the edit of the prompt alone."""
    pipe, none = pipes[name], Regions(HALVES, base=1.0)
    factors = Reweight({"frog": 3.0}, form="logit", images=(0, 1))
    for other in (factors, Replace(cross=1.0, joint=0.5)):
        alone = inside(pipe, other, name=name)
        same(inside(pipe, other, none, name=name), alone)
        same(inside(pipe, none, other, name=name), alone)
    with edit(pipe, [On(factors), On(Regions(HALVES))]):
        listed = made(name, pipe)
    same(listed, inside(pipe, factors, Regions(HALVES), name=name))
    assert (listed - inside(pipe, Regions(HALVES), name=name)).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_maps_are_those_of_the_prompt(pipes, name):
    """In the first layer, whose queries the edit has not changed."""
    pipe, seen = pipes[name], []
    first = {"sd": "down_blocks.0", "flux": "transformer_blocks.0"}[name]
    for contexts in ((), (Regions(HALVES),)):
        with record(pipe, ["frog"], where=Where(TEXT.kind, layers=(first,))) as maps:
            inside(pipe, *contexts, name=name, prompts=PROMPTS[:2], steps=1)
        seen.append(maps)
    before, edited = (maps["frog"] for maps in seen)
    same(before, edited, 1e-6)


def test_steering_sees_the_prompt_beside_regions(pipes):
    pipe = pipes["sd"]
    plain = inside(pipe, Regions(HALVES), prompts=PROMPTS[:1])
    descent = Descent(step_size=20.0, thresholds={}, guided=1.0)
    with steer(pipe, AttendAndExcite(["cat", "frog"]), where=TEXT, descent=descent):
        steered = inside(pipe, Regions(HALVES), prompts=PROMPTS[:1])
    assert steered.isfinite().all()
    assert (steered - plain).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_lora(name):
    pipe = ZOO[name]()
    plain = inside(pipe, Regions(HALVES), name=name)
    torch.manual_seed(0)
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    targets = ["to_q", "to_k", "to_v"]
    denoiser.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=targets))
    denoiser.double()
    edited = inside(pipe, Regions(HALVES), name=name)
    same(edited, by_hand(pipe, name, OFF if name == "flux" else ONE_CALL, Regions(HALVES)), 1e-6)
    assert (edited - plain).abs().max() > 1e-4


EVERYWHERE = Regions({CAT: (0.0, 0.0, 1.0, 1.0)}, base=0.0)  # is the prompt, on a UNet
ALONE = {"guidance_scale": 1.0}


def test_ip_adapter():
    pipe = ZOO["sd"]()
    torch.manual_seed(0)
    names = [n for n, _ in pipe.unet.named_modules() if n.endswith("attn2")]
    widths = [pipe.unet.get_submodule(name).to_q.in_features for name in names]
    keys = {
        f"{2 * i + 1}.to_{k}_ip.weight": torch.randn(width, 32)
        for i, width in enumerate(widths)
        for k in "kv"
    }
    projection = {
        "proj.weight": torch.randn(4 * 32, 16), "proj.bias": torch.randn(4 * 32),
        "norm.weight": torch.ones(32), "norm.bias": torch.zeros(32),
    }  # fmt: skip
    pipe.unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": keys}])
    pipe.unet.double()
    call = ALONE | {"ip_adapter_image_embeds": [torch.randn(1, 1, 16, dtype=torch.float64)]}
    edited = inside(pipe, EVERYWHERE, prompts=["a frog"], **call)
    same(edited, made("sd", pipe, [CAT], **call))
    assert (edited - made("sd", pipe, ["a frog"], **call)).abs().max() > 1e-4


def test_controlnet_reads_the_prompt():
    base = ZOO["sd"]()
    pipe = with_controlnet(base)
    call = ALONE | {"image": torch.rand(1, 3, 64, 96, dtype=torch.float64)}
    edited = inside(pipe, EVERYWHERE, prompts=["a frog"], **call)
    frog = loops.read(base, "sd", "a frog")[None]

    def read_frog(_, args, kwargs):
        return args, kwargs | {"encoder_hidden_states": frog}

    hook = pipe.controlnet.register_forward_pre_hook(read_frog, with_kwargs=True)
    same(edited, made("sd", pipe, [CAT], **call))
    hook.remove()
    assert (edited - made("sd", pipe, [CAT], **call)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"regions": {}}, "regions map texts to boxes"),
        ({"regions": {" ": LEFT}}, "a text that says something"),
        ({"regions": {CAT: (0.5, 0.0, 0.2, 1.0)}}, "the box of 'a red cat'"),
        ({"regions": {CAT: torch.zeros(3, 4)}}, "the mask of 'a red cat' is empty"),
        ({"regions": HALVES, "negatives": {"": LEFT}}, "a text that says something"),
        ({"regions": HALVES, "base": 1.5}, "a share between 0 and 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, problem):
    with pytest.raises(SettingError, match=problem):
        Regions(**settings)


@pytest.mark.parametrize("name", ["sd", "sd3", "flux"])
def test_a_text_that_is_not_read_to_its_end_is_refused_before_the_first_pass(pipes, name):
    pipe, passes = pipes[name], []
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    hook = denoiser.register_forward_hook(lambda *_: passes.append(1))
    long = "the text 'a cat a cat .* of an edit is longer than the model reads: what follows "
    with pytest.raises(WordError, match=long), edit(pipe, Regions({"a cat " * 300: LEFT})):
        made(name, pipe)
    hook.remove()
    assert not passes


def test_a_picture_that_is_not_made_is_refused(pipes):
    with pytest.raises(CouplingError, match="images=\\(3,\\)"):
        inside(pipes["sd"], Regions(HALVES, images=(3,)))


@pytest.mark.parametrize("base", [0.0, 0.3])
def test_pieces_of_keys_are_the_softmax_over_all(pipes, monkeypatch, base):
    """The picture is looked at once, where the kernel gives its normaliser, else under a mask."""
    what, merged, found = Regions({CAT: LEFT, FROG: MASK}, base=base), [], {}
    own = attncontrol.edits._joined._merged

    def counted(*args):
        merged.append(own(*args))
        return merged[-1]

    for name, function in (("pieces", counted), ("masks", lambda *_: None)):
        monkeypatch.setattr(attncontrol.edits._joined, "_merged", function)
        with edit(pipes["flux"], what):
            found[name] = made("flux", pipes["flux"])
    assert merged
    assert all(output is not None for output in merged)
    same(found["pieces"], found["masks"], 1e-9)
