"""``edit``: whole runs against written-out loops, places, nesting, and what is refused."""

from contextlib import ExitStack

import pytest
import torch

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.sites import Site, Where
from attncontrol.edits import (
    GRAG,
    TACA,
    AllToKey,
    BoundedAttention,
    DenseDiffusion,
    KeyMask,
    MutualAttention,
    OmissionSignal,
    Redistribute,
    Replace,
    Reweight,
    Share,
    SkipLayers,
    SoftIdentity,
    SoftUniform,
    StyleAligned,
)
from attncontrol.errors import CouplingError, EditError, SettingError, SiteError, WordError
from attncontrol.prompts.tokens import Token
from attncontrol.verbs.edit import edit
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.places import On, PerImage
from attncontrol.verbs.record import record
from tests.kit.moments import moment
from tests.kit.runs import run
from tests.kit.zoo import flux, pixart, sd, sd3, sd35
from tests.reference import editing as slow
from tests.reference import keys, modulation

PROMPTS = ["a red cat and a frog", "a blue cat and a frog", "a red cat and a blue turtle"]
SAME = ["a red cat and a frog", "a blue cat and a frog", "a red dog and a frog"]  # equal lengths
TOTAL = 5
GRIDS = {96: (8, 12), 24: (4, 6), 6: (2, 3)}
CLIP = 32  # positions of the first text encoder
JOINT = {"sd3": CLIP + 16, "sd35": CLIP + 16, "flux": 16}
ONE_CALL, TWO_CALLS, OFF = (("uncond", "cond"),), (("cond",), ("uncond",)), (("cond",),)
MODELS = {"sd": sd, "sd3": sd3, "sd35": sd35, "flux": flux, "pixart": pixart}
CALLS = {
    "sd guided": ("sd", ONE_CALL, {"guidance_scale": 3.0, "negative_prompt": ["a dog"] * 3}),
    "sd": ("sd", OFF, {"guidance_scale": 1.0}),
    "sd3 guided": ("sd3", ONE_CALL, {"guidance_scale": 3.0}),
    "sd3": ("sd3", OFF, {"guidance_scale": 1.0}),
    "sd35 guided": ("sd35", ONE_CALL, {"guidance_scale": 3.0}),
    "flux guided": ("flux", TWO_CALLS, {"true_cfg_scale": 3.0, "negative_prompt": ["a dog"] * 3}),
    "flux": ("flux", OFF, {}),
    "pixart guided": ("pixart", ONE_CALL, {"guidance_scale": 3.0}),
    "pixart": ("pixart", OFF, {"guidance_scale": 1.0}),
}


@pytest.fixture(scope="module")
def pipes():
    return {name: make() for name, make in MODELS.items()}


def tokens(pipe, name, prompt, word):
    """Positions of a word in the text that the denoiser of ``name`` reads."""
    if name in ("sd3", "sd35"):
        first = slow.positions(pipe.tokenizer, prompt, word)
        return first + slow.positions(pipe.tokenizer_3, prompt, word, CLIP)
    return slow.positions(pipe.tokenizer_2 if name == "flux" else pipe.tokenizer, prompt, word)


def weights(pipe, name, prompts, factors):
    """By image {position: factor}."""
    return [
        {p: f for word, f in factors.items() for p in tokens(pipe, name, prompt, word)}
        for prompt in prompts
    ]


def by_hand(pipe, name, method, branches, prompts, images=1, **call):
    with slow.written_out(
        pipe, method, images=images * len(prompts), total=TOTAL, branches=branches, grids=GRIDS,
        texts=JOINT.get(name, 0), picture_first=name != "flux",
    ):  # fmt: skip
        return latents(pipe, name, prompts, images, **call)


def latents(pipe, name, prompts, images=1, **call):
    return run(name, pipe, prompts, steps=TOTAL, num_images_per_prompt=images, **call)


def left(_, x, grid):
    return 3 * x < grid[1]


def covered(_, x, grid):
    """Of the box (0.2, 0, 0.7, 1), per cell, by counting fine columns."""
    fine = 60
    columns = [(x + (i + 0.5) / fine) / grid[1] for i in range(fine)]
    return sum(0.2 < c < 0.7 for c in columns) / fine


def mostly(y, x, grid):
    return covered(y, x, grid) > 0.5


THIRD = (0.0, 0.0, 1 / 3, 1.0)
SELF = Where(kind=("self", "joint"))
FACTORS = {"cat": 2.5, "and": -0.3}
POSITIVE = {"cat": 2.5, "and": 0.1}
BOTH = ("cond", "uncond")

LATE = Where(kind=("self", "joint"), layers=("up_blocks.*", "*transformer_blocks.1.*"))


def among(at):
    return at.kind != "cross"


def late(at):
    """The sites of LATE."""
    return at.kind != "cross" and ("up_blocks" in at.name or "transformer_blocks.1." in at.name)


def bounded(pipe, name, prompts):
    def of(*words):
        return [[tokens(pipe, name, t, w) for w in words] for t in prompts]

    texts, hidden = of("cat", "and"), [words[0] for words in of("a")]
    clip, t5 = getattr(pipe, "tokenizer", None), getattr(pipe, "tokenizer_3", None)
    read = pipe.tokenizer_2 if name == "flux" else clip
    ends = [[len(read(t).input_ids) - 1] for t in prompts]
    if name in ("sd3", "sd35"):
        of_t5 = [CLIP + len(t5(t).input_ids) - 1 for t in prompts]
        ends = [[*clip_end, end] for clip_end, end in zip(ends, of_t5, strict=True)]
    return modulation.OfSome((0, 2), modulation.Bounded([left, mostly], texts, hidden, ends))


def sides(at, _):
    spots = [(y, x) for y in range(at.grid[0]) for x in range(at.grid[1])]
    return [left(*spot, at.grid) for spot in spots], [mostly(*spot, at.grid) for spot in spots]


def found(pipe, name, prompts, seen):
    texts = [tokens(pipe, name, prompt, "cat") for prompt in prompts]
    return modulation.MutualWords(1, among, texts, seen, 0.4)


def along():
    """By site of the joint models at hand: two heads of 16 each."""
    rng = torch.Generator().manual_seed(5)
    return {
        f"transformer_blocks.{n}.attn": torch.randn(2, 16, generator=rng, dtype=torch.float64)
        for n in (0, 1)
    }


ALONG = along()

# name: edit, where, the oracle of (pipe, name, prompts), the prompts, and whose latents stay
METHODS = {
    "hidden region": (
        KeyMask(THIRD), SELF, lambda *_: slow.HiddenKeys(left, branches=BOTH), PROMPTS, (),
    ),
    "hidden region of one": (
        KeyMask(THIRD, images=(1,)), SELF,
        lambda *_: slow.HiddenKeys(left, images=(1,), branches=BOTH), PROMPTS, (0, 2),
    ),
    "hidden word": (
        KeyMask(words=("cat",)), Where(kind=("cross", "joint")),
        lambda p, n, prompts: slow.HiddenKeys(text=[tokens(p, n, t, "cat") for t in prompts]),
        PROMPTS, (),
    ),
    "zero keys": (
        KeyMask((0.2, 0.0, 0.7, 1.0), soft=True, images=(0, 2)), Where(kind="self"),
        lambda *_: slow.MaskedKeyInput(covered, images=(0, 2), branches=BOTH), PROMPTS, (1,),
    ),
    "reweighted": (
        Reweight(FACTORS), None,
        lambda p, n, prompts: slow.Weighted(weights(p, n, prompts, FACTORS)), PROMPTS, (),
    ),
    "reweighted logits": (
        Reweight(POSITIVE, form="logit", images=(0, 2)), None,
        lambda p, n, prompts: slow.Weighted(
            weights(p, n, prompts, POSITIVE), normalised=True, images=(0, 2)
        ), PROMPTS, (1,),
    ),
    "mutual": (
        MutualAttention(start=0.4), None, lambda *_: slow.Mutual(0, 2, among), PROMPTS, (0,),
    ),
    "mutual late": (
        MutualAttention(source=2, start=0.0), LATE, lambda *_: slow.Mutual(2, 0, late),
        PROMPTS, (2,),
    ),
    "shared": (
        Share(("query", "value"), start=0.25, stop=0.5, outside=THIRD), None,
        lambda *_: slow.Taken("qv", 0, lambda at: among(at) and at.step in (1, 2), left),
        PROMPTS, (0,),
    ),
    "union": (
        MutualAttention(0, 0.4, union=True), None,
        lambda *_: modulation.MutualSides(0, 2, among), PROMPTS, (0,),
    ),
    "mutual masks": (
        MutualAttention(2, 0.0, masks=(THIRD, (0.2, 0.0, 0.7, 1.0)), layers=LATE.layers), None,
        lambda *_: modulation.MutualSides(2, 0, late, sides), PROMPTS, (2,),
    ),
    "mutual words": (
        MutualAttention(1, 0.0, words=["cat"], threshold=0.4, maps=Where(stride=4)), None,
        lambda p, n, prompts: found(p, n, prompts, lambda at: at.grid == (2, 3)), PROMPTS, (1,),
    ),
    "mutual words of all": (
        MutualAttention(1, 0.0, words=["cat"], threshold=0.4), None,
        lambda p, n, prompts: found(p, n, prompts, lambda _: True), PROMPTS, (1,),
    ),
    "style": (
        StyleAligned(scale=0.8, shift=0.7), None,
        lambda *_: slow.Shared(0, 0.8, 0.7, True, among), PROMPTS, (0,),
    ),
    "keys and values": (
        StyleAligned(source=2, normalise=False), LATE,
        lambda *_: slow.Shared(2, 1.0, 0.0, False, late), PROMPTS, (2,),
    ),
    "replaced": (
        Replace(cross=0.6, among=0.4, joint=0.4, cells=24), None,
        lambda *_: slow.Replaced(0, 0.6, 0.4, 0.4, 24), SAME, (0,),
    ),
    "replaced, last source": (
        Replace(source=2, cross=1.0, among=0.2, joint=1.0), None,
        lambda *_: slow.Replaced(2, 1.0, 0.2, 1.0, 32 * 32), SAME, (2,),
    ),
    "distributed": (
        AllToKey(size=3, alpha=0.7, beta=0.2), None,
        lambda *_: keys.Distributed(0, 3, 0.7, 0.2), PROMPTS, (0,),
    ),
    "progressive": (
        AllToKey("progressive", source=2, size=3), None,
        lambda *_: keys.Progressive(2, 3), PROMPTS, (2,),
    ),
    "told": (
        OmissionSignal(ALONG, ["cat"], 0.8, first=0.4), None,
        lambda p, n, prompts: keys.Told(
            ALONG, [tokens(p, n, t, "cat") for t in prompts], 0.8, 2
        ), PROMPTS, (),
    ),
    "tempered": (TACA(1.3, 0.4), None, lambda *_: modulation.Tempered(1.3, 2), PROMPTS, ()),
    "deviating": (
        GRAG(0.7, bias=1.1, region=(0.2, 0.0, 0.7, 1.0)), None,
        lambda *_: modulation.Deviating(0.7, 1.1, covered), PROMPTS, (),
    ),
    "redistributed": (
        Redistribute(0.3, factor=1.5, most=0.4), Where(kind=("self", "cross", "joint")),
        lambda *_: modulation.Redistributed(0.3, 1.5, 0.4), PROMPTS, (),
    ),
    "dense": (
        DenseDiffusion({"cat": THIRD, "and": (0.2, 0.0, 0.7, 1.0)}, among=0.4, size=0.7), None,
        lambda p, n, prompts: modulation.Dense(
            [left, mostly], [[tokens(p, n, t, w) for w in ("cat", "and")] for t in prompts],
            [float(t) / 1000 for t in p.scheduler.timesteps], 1, among=0.4, size=0.7,
        ), PROMPTS, (),
    ),
    "bounded": (
        BoundedAttention({"cat": THIRD, "and": (0.2, 0.0, 0.7, 1.0)}, ["a#1"], images=(0, 2)), None,
        bounded, PROMPTS, (1,),
    ),
}  # fmt: skip
UNBIASED = ("sd guided", "sd")  # whose projection of keys has no bias, as DesignEdit's
WITH_JOINT = tuple(call for call in CALLS if CALLS[call][0] in JOINT)
ONLY = {"zero keys": UNBIASED, "told": WITH_JOINT, "tempered": WITH_JOINT, "deviating": WITH_JOINT}
ONLY |= {"mutual words": UNBIASED, "mutual words of all": WITH_JOINT}
CASES = [(call, method) for call in CALLS for method in METHODS if call in ONLY.get(method, CALLS)]


@pytest.mark.parametrize(("call", "method"), CASES, ids=lambda name: name.replace(" ", "-"))
def test_edits_equal_written_out_runs(pipes, call, method):
    """Latents are compared in units of the largest; 2e-15 was reached. Pictures that are no part of
    an edit are bit-identical to those of the plain run, the source among them."""
    name, branches, arguments = CALLS[call]
    what, where, oracle, prompts, staying = METHODS[method]
    pipe = pipes[name]
    plain = latents(pipe, name, prompts, **arguments)
    with edit(pipe, what, where=where):
        edited = latents(pipe, name, prompts, **arguments)
    expected = by_hand(pipe, name, oracle(pipe, name, prompts), branches, prompts, **arguments)
    size = plain.abs().max()
    torch.testing.assert_close(edited / size, expected / size, rtol=0, atol=1e-13)
    changes = ((edited - plain).flatten(1).abs().amax(1) / size).tolist()
    for image, change in enumerate(changes):
        assert change == 0 if image in staying else change > 1e-6
    assert torch.equal(plain, latents(pipe, name, prompts, **arguments))


# by image: (words, the words of the source in whose place they are), by their numbers
UNEQUAL = ["a red cat and a frog", "a huge pink cat and a frog", "red turtle and a frog in snow"]
KEPT = {
    1: [([0], [0]), ([3], [2]), ([4], [3]), ([5], [4]), ([6], [5])],
    2: [([0], [1]), ([2], [3]), ([3], [4]), ([4], [5])],
}
SWAPPED = {1: [([1, 2], [1])], 2: [([1], [2])]}


def tables(pipe, pairs, steps, own_steps):
    """Of ``Aligned``; ``own_steps`` {word: steps}."""
    length = pipe.tokenizer.model_max_length
    texts = [slow.of_each_word(pipe.tokenizer, prompt, length) for prompt in UNEQUAL]
    found = {}
    for image in (1, 2):
        (there, begin), (here, other) = texts[0], texts[image]
        ends = [(begin[0], other[0]), (begin[1], other[1])]
        ends += [(p, p) for p in begin[2:] if p in other[2:]]
        table = {target: ([source], 1, steps) for source, target in ends}
        for words, those in pairs[image]:
            targets = [p for word in words for p in here[word]]
            sources = [p for word in those for p in there[word]]
            until = own_steps.get(UNEQUAL[image].split()[words[0]], steps)
            for place, target in enumerate(targets):
                if len(targets) == len(sources):
                    table[target] = ([sources[place]], 1, until)
                else:
                    table[target] = (sources, 1 / len(targets), until)
        found[image] = table
    return found


@pytest.mark.parametrize("swapped", [True, False])
@pytest.mark.parametrize("call", ["sd guided", "sd"])
def test_words_take_the_place_of_others_and_new_ones_have_their_own(pipes, call, swapped):
    name, branches, arguments = CALLS[call]
    pipe = pipes[name]
    pairs = {i: KEPT[i] + (SWAPPED[i] if swapped else []) for i in KEPT}
    what = Replace(cross=0.8, among=0.4, cells=24, swapped=swapped, words={"frog": 0.4})
    plain = latents(pipe, name, UNEQUAL, **arguments)
    with edit(pipe, what):
        edited = latents(pipe, name, UNEQUAL, **arguments)
    oracle = slow.Aligned(0, tables(pipe, pairs, 4, {"frog": 2}), among=0.4, cells=24)
    expected = by_hand(pipe, name, oracle, branches, UNEQUAL, **arguments)
    size = plain.abs().max()
    torch.testing.assert_close(edited / size, expected / size, rtol=0, atol=1e-13)
    assert torch.equal(edited[0], plain[0])
    assert ((edited - plain)[1:].flatten(1).abs().amax(1) / size > 1e-6).all()


# images as the pipeline numbers them: 0 and 1 of the first prompt, 2 and 3 of the second
SEVERAL = {
    "mutual": (MutualAttention(source=3, start=0.0), slow.Mutual(3, 0, among)),
    "replaced": (Replace(source=3), slow.Replaced(3, 0.8, 0.4, 0.2, 32 * 32)),
}


@pytest.mark.parametrize("method", SEVERAL)
@pytest.mark.parametrize("call", ["sd guided", "sd3 guided", "flux guided", "pixart guided"])
def test_the_source_is_one_image_of_several_per_prompt(pipes, call, method):
    name, branches, arguments = CALLS[call]
    what, oracle = SEVERAL[method]
    pipe = pipes[name]
    plain = latents(pipe, name, SAME, 2, **arguments)
    with edit(pipe, what):
        edited = latents(pipe, name, SAME, 2, **arguments)
    expected = by_hand(pipe, name, oracle, branches, SAME, 2, **arguments)
    size = plain.abs().max()
    torch.testing.assert_close(edited / size, expected / size, rtol=0, atol=1e-13)
    changed = (edited - plain).flatten(1).abs().amax(1) / size > 1e-6
    assert changed.tolist() == [True, True, True, False, True, True]
    assert torch.equal(edited[3], plain[3])


def test_presets_name_the_blocks_of_the_official_codes():
    names = {f"transformer_blocks.{i}.attn" for i in range(19)}
    names |= {f"single_transformer_blocks.{i}.attn" for i in range(38)}
    sites = [Site(name, "joint", 24, 1) for name in sorted(names)]

    def blocks(preset):
        chosen = Share.preset(preset).where.select(sites)
        return sorted(int(s.name.split(".")[1]) + 19 * s.name.startswith("single") for s in chosen)

    assert blocks("stable-flow") == [0, 1, 17, 18, 25, 28, 53, 54, 56]
    assert blocks("rf-edit") == list(range(39, 57))
    assert blocks("fireflow") == list(range(19, 57))
    assert len(blocks("consistedit")) == 57
    assert Share.preset("freeflux-add").what == ("key", "value")
    assert Share.preset("kv-edit", THIRD) == Share(("key", "value"), outside=THIRD)
    both = Share.preset("consistedit-outside", THIRD)
    assert (both.what, both.outside) == (("query", "key", "value"), THIRD)
    with pytest.raises(SettingError, match=r"kv-edit shares what is outside=\(left, top"):
        Share.preset("kv-edit")
    with pytest.raises(SettingError, match="'flow' is no preset; there are rf-edit, fireflow"):
        Share.preset("flow")


LAYER = "up_blocks.1.attentions.0.transformer_blocks.0.attn2"
CROSS = Where(kind="cross")
HIDDEN = KeyMask(words=("cat",))


def made(pipe, *contexts, steps=2):
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        return run("sd", pipe, PROMPTS, steps=steps)


def doubled(call, _):
    return 2 * call.run()


def raised(call, _):
    return call.run() + 1


def test_the_outer_edit_sees_a_call_first_and_its_run_reaches_the_inner_one(pipe):
    inner_first = made(pipe, edit(pipe, lambda call, _: 2 * (call.run() + 1), where=SELF))
    outer_first = made(pipe, edit(pipe, lambda call, _: 2 * call.run() + 1, where=SELF))
    nested = made(pipe, edit(pipe, doubled, where=SELF), edit(pipe, raised, where=SELF))
    assert torch.equal(nested, inner_first)
    assert torch.equal(
        made(pipe, edit(pipe, raised, where=SELF), edit(pipe, doubled, where=SELF)), outer_first
    )
    assert (inner_first - outer_first).abs().max() > 0.1


def test_a_returned_call_goes_on_to_the_inner_edit(pipe):
    seen = []

    def outer(call, _):
        seen.append(call.value)
        return call.replace(value=3 * call.value)

    def inner(call, _):
        seen.append(call.value)
        return call

    made(pipe, edit(pipe, outer, where=SELF), edit(pipe, inner, where=SELF), steps=1)
    assert len(seen) == 2 * 10  # sites
    for before, after in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(after, 3 * before)


def test_a_list_is_edited_in_its_order_as_nesting_is(pipe):
    weight = Reweight({"cat": 2.5}, form="logit")
    nested = made(pipe, edit(pipe, HIDDEN), edit(pipe, weight))
    listed = made(pipe, edit(pipe, [On(HIDDEN), On(weight)]))
    assert torch.equal(listed, nested)
    identity = SoftIdentity(0.5)
    nested = made(pipe, edit(pipe, KeyMask(THIRD)), edit(pipe, identity, where=SELF))
    assert torch.equal(made(pipe, edit(pipe, [On(KeyMask(THIRD)), On(identity, SELF)])), nested)
    assert (nested - made(pipe, edit(pipe, KeyMask(THIRD)))).abs().max() > 0.1


def test_an_output_is_no_call_for_the_next_of_a_list(pipe):
    name = LAYER.replace("attn2", "attn1")
    both = [On(SoftIdentity(0.5), heads=[(name, 0), (name, 1)]), On(SoftUniform(0.5), SELF)]
    with pytest.raises(EditError, match="put it before, on other heads, or in an edit") as error:
        made(pipe, edit(pipe, both))
    assert str(error.value) == (
        f"SoftIdentity(u=0.5, scope='all') gives an output at {name}, so SoftUniform(u=0.5) after "
        "it has no call of these heads to change: put it before, on other heads, or in an "
        "edit(...) inside this one"
    )
    apart = [On(SoftIdentity(0.5), heads=[(name, 0)]), On(SoftUniform(0.5), heads=[(name, 1)])]
    one_by_one = made(pipe, *(edit(pipe, [on]) for on in apart))
    torch.testing.assert_close(made(pipe, edit(pipe, apart)), one_by_one, rtol=0, atol=1e-12)


def probabilities(pipe, *contexts):
    """[image step head height width word] at LAYER."""
    with record(pipe, ["cat"], where=Where(layers=(LAYER,)), keep=("step", "head")) as maps:
        made(pipe, *contexts)
    return maps.layers[LAYER][:, 0]


def test_recorders_see_exactly_the_edited_heads(pipe):
    plain = probabilities(pipe)
    one = probabilities(pipe, edit(pipe, HIDDEN, heads=[(LAYER, 1)]))
    assert plain.shape == (3, 2, 4, 4, 6, 1)
    assert plain.amin() > 0
    assert one[:, :, 1].abs().max() == 0
    assert torch.equal(one[:, 0, [0, 2, 3]], plain[:, 0, [0, 2, 3]])
    each = ([(LAYER, 0), (LAYER, 3)], [], [(LAYER, 2)])
    several = probabilities(pipe, edit(pipe, HIDDEN, heads=PerImage(each)))
    hidden = (several == 0).flatten(3).all(-1)  # image step head
    assert hidden.all(1).tolist() == [
        [True, False, False, True], [False] * 4, [False, False, True, False],
    ]  # fmt: skip
    assert torch.equal(several[:, 0][~hidden[:, 0]], plain[:, 0][~hidden[:, 0]])


def test_steps_are_shares_of_the_run_with_both_ends(pipe):
    seen = []

    def noting(call, now):
        seen.append(now.step.index)
        return call

    made(pipe, edit(pipe, noting, where=Where(layers=(LAYER,)), steps=(0.25, 0.5)), steps=5)
    assert seen == [1, 2]
    late = []

    def after(call, now):
        late.append(now.progress)
        return KeyMask(THIRD)(call, now) if now.step.index >= 2 else call

    window = made(pipe, edit(pipe, KeyMask(THIRD), steps=(0.5, 1.0)), steps=5)
    assert torch.equal(made(pipe, edit(pipe, after, where=SELF), steps=5), window)
    assert sorted(set(late)) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_replace_acts_in_the_official_number_of_steps():
    """50 steps: 40 of cross- and 20 of self-attention; 28: int(0.2 * 28) = 5 of joint attention."""
    tensors = [
        torch.randn(2, 2, 6, 4, generator=torch.Generator().manual_seed(i)) for i in range(3)
    ]
    text = tuple(Token(i, i, "", *((0, 1) if i == 1 else (0, 0)), i != 1) for i in range(6))
    said = {"images": 2, "prompts": ("a", "b"), "read": lambda _: text}
    counts = {}
    for kind, total in (("cross", 50), ("self", 50), ("joint", 28), ("joint", 50), ("cross", 25)):
        call = AttentionCall(Site("there", kind, 2, 1), *tensors)
        layout = Layout((2, 3), text=slice(0) if kind == "self" else slice(None))
        results = [
            Replace()(call, moment(layout, index=i, total=total, **said)) for i in range(total)
        ]
        acting = [result is not call for result in results]
        assert acting == sorted(acting, reverse=True)
        counts[kind, total] = sum(acting)
    assert counts == {
        ("cross", 50): 40, ("self", 50): 20, ("joint", 28): 5, ("joint", 50): 10, ("cross", 25): 20,
    }  # fmt: skip


def first_query(call, _):
    return call.run()[:, :, :1]


def short_call(call, _):
    return call.replace(query=call.query[:, :, :1])


FIRST = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
RETURN = (
    f" at {FIRST}; return the changed call with queries (6, 2, 96, 8), or an output of shape "
    "(6, 2, 96, 8)"
)
WRONG = {
    "class": (
        EditError, lambda pipe: edit(pipe, KeyMask, where=SELF),
        "<class 'attncontrol.edits.key_mask.KeyMask'> is no edit: write KeyMask(...); an edit is an"
        " object of attncontrol.edits, or a function (call, now) that returns the changed call or"
        " its output",
    ),
    "output": (
        EditError, lambda pipe: edit(pipe, first_query, where=SELF),
        "the edit first_query returned an output of shape (6, 2, 1, 8)" + RETURN,
    ),
    "call": (
        EditError, lambda pipe: edit(pipe, short_call, where=SELF),
        "the edit short_call returned a call with queries (6, 2, 1, 8)" + RETURN,
    ),
    "blocks": (
        EditError, lambda pipe: edit(pipe, [On(SkipLayers(("mid_block",)))]),
        "SkipLayers leaves whole blocks out of a weakened pass: use it with perturb",
    ),
    "list and place": (
        EditError, lambda pipe: perturb(pipe, [On(doubled)], scale=1.0, heads=[(FIRST, 0)]),
        "several edits are a list of On(edit, where=..., heads=...), each with its own place, not "
        f"[On(edit={doubled}, where=None, heads=None)] with where=None and heads=[('{FIRST}', 0)]",
    ),
    "no place": (
        SiteError, lambda pipe: edit(pipe, doubled),
        "say which attention to change: where=Where(kind='self', layers=('mid_block',)) or "
        "heads=[(site, head), ...]",
    ),
    "no head": (
        SiteError, lambda pipe: edit(pipe, doubled, heads=[(LAYER, 4)]),
        f"there is no head 4 at '{LAYER}'; it has 4 heads",
    ),
    "steps": (
        SettingError, lambda pipe: edit(pipe, doubled, where=SELF, steps=(0.6, 0.4)),
        "steps must be two shares of the run, such as (0.0, 0.5), not (0.6, 0.4)",
    ),
    "source": (
        CouplingError, lambda pipe: edit(pipe, MutualAttention(source=3, start=0.0)),
        "the source is image 3, but the pipeline makes images [0, 1, 2]; give it a prompt for"
        " every image, the source's too",
    ),
    "weakened source": (
        CouplingError, lambda pipe: perturb(pipe, MutualAttention(4, 0.0), scale=1.0),
        "the source is image 4, but the pipeline makes images [0, 1, 2]; give it a prompt for"
        " every image, the source's too",
    ),
    "images": (
        CouplingError, lambda pipe: edit(pipe, KeyMask(THIRD, images=(0, 3))),
        "images=(0, 3), but the pipeline makes 3, numbered from 0",
    ),
    "heads of images": (
        CouplingError, lambda pipe: edit(pipe, HIDDEN, heads=PerImage(([(LAYER, 0)], []))),
        "heads are given per image for 2, not for 3 images",
    ),
    "word of one prompt": (
        WordError, lambda pipe: edit(pipe, Replace(words={"turtle": 0.4})),
        "'turtle' is not in the prompt 'a blue cat and a frog'; its words are: a, blue, cat, and, "
        "frog",
    ),
    "word": (
        WordError, lambda pipe: edit(pipe, Reweight({"turtle": 2.0})),
        "'turtle' is not in the prompt 'a red cat and a frog'; its words are: a, red, cat, and, "
        "frog",
    ),
    "everything": (
        SettingError, lambda pipe: edit(pipe, KeyMask((0.0, 0.0, 1.0, 1.0))),
        "KeyMask(region=(0.0, 0.0, 1.0, 1.0), words=(), soft=False, images=None) leaves none of 96 "
        f"keys at {FIRST}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_errors_say_what_was_asked_and_what_exists(pipe, name):
    kind, context, message = WRONG[name]
    plain = made(pipe)
    with pytest.raises(kind) as error:
        made(pipe, context(pipe))
    assert str(error.value) == message
    assert torch.equal(made(pipe), plain)


def test_keys_that_a_site_does_not_have_are_refused(pipe):
    for what, where in ((HIDDEN, SELF), (KeyMask(THIRD), CROSS)):
        with pytest.raises(SiteError, match="no attention site matches Where"):
            made(pipe, edit(pipe, what, where=where), steps=1)


def test_a_block_without_a_run_is_an_error(pipe):
    with (
        pytest.raises(
            CouplingError, match=r"call this pipeline \(StableDiffusionPipeline\) inside"
        ),
        edit(pipe, doubled, where=SELF),
    ):
        pass


SETTINGS = {
    "nothing to hide": (KeyMask, {}, "or words=['cat']"),
    "a word alone": (
        KeyMask, {"words": "cat"},
        "words must be a list of which each is a string, an integer or Span, not 'cat'",
    ),
    "an empty box": (KeyMask, {"region": (0.5, 0.0, 0.2, 1.0)}, "not (0.5, 0.0, 0.2, 1.0)"),
    "an empty mask": (KeyMask, {"region": torch.zeros(4, 4)}, "is empty, or is not"),
    "no factors": (Reweight, {"factors": {}}, "not {} in the form 'value'"),
    "no number": (
        Reweight, {"factors": {"a": float("nan")}}, "to a finite number, not {'a': nan}"
    ),
    "below 0": (
        Reweight, {"factors": {"a": -1.0}, "form": "logit"}, "not {'a': -1.0} in the form 'logit'"
    ),
    "source": (
        Replace, {"source": -1},
        "Replace.source must be the number of an image, a tuple of one for every image, or a kept "
        "pass, not -1",
    ),
    "share": (Replace, {"cross": 1.5}, "Replace.cross must be a share between 0 and 1, not 1.5"),
    "mask": (
        MutualAttention, {"masks": ((0.5, 0.0, 0.2, 1.0), (0.0, 0.0, 1.0, 1.0))}, "(0.5, 0.0, 0.2",
    ),
    "union and words": (MutualAttention, {"union": True, "words": ["a"]}, "choose one of union="),
    "regions": (BoundedAttention, {"regions": {}}, "regions map words to boxes, such as"),
    "region": (DenseDiffusion, {"regions": {"cat": (0.5, 0.0, 0.2, 1.0)}}, "the box of 'cat' must"),
    "no directions": (OmissionSignal, {"directions": {}, "words": ["a"]}, "give directions of"),
    "size": (AllToKey, {"size": 0}, "AllToKey.size must be an integer of at least 1, not 0"),
    "gamma": (TACA, {"gamma": 0.0}, "TACA.gamma must be a number above 0, not 0.0"),
    "delta": (GRAG, {"delta": -1.0}, "GRAG.delta must be a number of at least 0"),
    "start": (
        MutualAttention, {"start": -0.1},
        "MutualAttention.start must be a share between 0 and 1, not -0.1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_bad_settings_are_refused_when_they_are_given(name):
    kind, settings, message = SETTINGS[name]
    with pytest.raises((SettingError, WordError)) as error:
        kind(**settings)
    assert message in str(error.value)
