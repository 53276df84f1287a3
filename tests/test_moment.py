"""What handlers of attention are told of where they are, and that it is true: under refinement, in
every kind of pass, in every order of contexts, on a UNet, SD3 and FLUX."""

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor2_0

from attncontrol.attention.edit import Edit, at
from attncontrol.attention.sites import TEXT, Where
from attncontrol.edits.mutual_attention import MutualAttention
from attncontrol.edits.replace import Replace
from attncontrol.edits.soft_identity import SoftIdentity
from attncontrol.errors import CouplingError
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import as_objective
from attncontrol.running.looking import Gaze, View
from attncontrol.running.session import Hooks, attach
from attncontrol.verbs.edit import On, edit
from attncontrol.verbs.gradient import loss_and_gradient
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.picture import record_picture
from attncontrol.verbs.record import record
from attncontrol.verbs.steer import steer
from tests.kit.runs import run
from tests.kit.sd import LAYER
from tests.kit.state import denoiser_of
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import ZOO

MODELS = ("sd", "sd3", "flux")
LAST = {
    "sd": Where(kind="self", layers=("up_blocks.2",)),
    "sd3": Where(layers=("transformer_blocks.2",)),
    "flux": Where(layers=("single_transformer_blocks.1",)),
}
TEXT_FIRST = {  # a site whose text keys depend on prompt and timestep alone
    "sd": LAYER,
    "sd3": "transformer_blocks.0.attn",
    "flux": "transformer_blocks.0.attn",
}
PROMPTS = ["a red cat", "a blue cat", "a tiny cat"]
CAT = 3
ORDERS = list(itertools.permutations(("edit", "steer", "record")))
PIPES = {}


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture
def pipe(name):
    if name not in PIPES:
        PIPES[name] = ZOO[name]()
    return PIPES[name]


def made(name, pipe, prompts=PROMPTS, *, steps=2, **call):
    if name == "flux":
        call = {"negative_prompt": "blurry", "true_cfg_scale": 2.0} | call
    return run(name, pipe, prompts, steps=steps, height=32, width=32, **call)


def clearer(maps):
    """Differs between images, smooth, and more than 1 for all but red ones."""
    red = torch.tensor([0.0 if "red" in prompt else 10.0 for prompt in maps.prompts])
    places = [[token.text.strip("▁</w>") for token in of].index("cat") for of in maps.tokens]
    cat = torch.stack([of[..., place] for of, place in zip(maps.mean(), places, strict=True)])
    return red.to(cat) + cat.flatten(1).mean(1) + (cat**2).flatten(1).sum(1)


def descent(size=3.0, **settings):
    return Descent(step_size=size, **{"thresholds": {}, "guided": 1.0} | settings)


def watched(seen):
    def look(call, now):
        seen.append((call, now))
        return call

    return look


def branches_of(name):
    return [("cond",), ("uncond",)] if name == "flux" else [("uncond", "cond")]


# 1. Rows under refinement


@pytest.mark.parametrize("source", [None, 0, 2])
def test_passes_under_refinement(name, pipe, source):
    """The red picture is at its target: the others are refined, and take the source along."""
    seen, where = [], Where(layers=(TEXT_FIRST[name],))
    refinement = descent(thresholds={0.0: -1.0}, max_refinements=2)
    with ExitStack() as stack:
        stack.enter_context(edit(pipe, watched(seen), where=where))
        if source is not None:
            stack.enter_context(edit(pipe, MutualAttention(source=source, start=0.0)))
        steering = steer(pipe, clearer, where=Where(kind=("cross", "joint")), descent=refinement)
        trace = stack.enter_context(steering)
        among = Where(kind=("self", "joint"))
        stack.enter_context(perturb(pipe, SoftIdentity(), scale=2.0, where=among))
        made(name, pipe, steps=2)
    assert [step.refinements for step in trace.steps] == [(0, 2, 2), (0, 0, 0)]
    everybody, riders = (0, 1, 2), [source] if source == 0 else []
    gradients = [("gradient", ("cond",), everybody)]
    refined = [("gradient", ("cond",), (1, 2, *riders))] * 2
    own = [("own", branches, everybody) for branches in branches_of(name)]
    weakened = [("weakened", ("cond",), everybody)]
    own[1:1] = weakened  # after the conditional call
    passes = [(now.purpose, now.branches, now.images) for _, now in seen]
    assert passes == [*gradients, *refined, *own, *gradients, *own]
    assert [now.step.index for _, now in seen] == [0] * (3 + len(own)) + [1] * (1 + len(own))
    riding = [now.riders for _, now in seen if now.purpose == "gradient"]
    assert riding == [0, len(riders), len(riders), 0]
    assert_rows_are_those_of_their_images(seen)


def assert_rows_are_those_of_their_images(seen):
    """Keys of the text, which depend on prompt and timestep alone."""
    wanted = {}
    for call, now in seen:
        assert len(call.query) == len(now.branches) * len(now.images)
        keys = call.key[:, :, now.layout.text].detach()
        for branch in now.branches:
            for row in range(len(call.query))[now.rows(branch)]:
                image = now.image_of_row(row)
                same = wanted.setdefault((now.step.index, branch, image), keys[row])
                torch.testing.assert_close(keys[row], same, rtol=0, atol=1e-12)
    for index, branch, image in wanted:
        others = [k for k in wanted if k[:2] == (index, branch) and k[2] != image]
        for other in others if branch == "cond" else ():
            assert (wanted[other] - wanted[index, branch, image]).abs().max() > 1e-3


def test_listeners_have_no_riders(name, pipe):
    """What steer's own listener sees in a refinement: the refined images and nothing else."""
    shapes = []

    def objective(maps):
        shapes.append((maps.prompts, *{of.shape[0] for of in maps.layers.values()}))
        return clearer(maps)

    refinement = descent(thresholds={0.0: -1.0}, max_refinements=1)
    with edit(pipe, MutualAttention(start=0.0)), steer(pipe, objective, descent=refinement):
        made(name, pipe, steps=1)
    assert shapes == [(tuple(PROMPTS), 3), (tuple(PROMPTS[1:]), 2)]


def test_a_source_that_is_not_made_is_refused(name, pipe):
    for verbs in ((), (steer(pipe, clearer, descent=descent()),)):
        with ExitStack() as stack:
            stack.enter_context(pytest.raises(CouplingError, match=r"source is image 3, .*0, 1, 2"))
            stack.enter_context(edit(pipe, MutualAttention(source=3, start=0.0)))
            for verb in verbs:
                stack.enter_context(verb)
            made(name, pipe)


# 2. Calls of the denoiser, restricted


def test_restricted_calls_keep_their_invariants(name, pipe):
    calls = []
    run_ = attach(pipe)
    with run_.hooked(Hooks(before=calls.append)):
        made(name, pipe, steps=1)
    call = calls[0]
    assert call.images == (0, 1, 2)
    for branch in call.branches:
        whole = call.of(branch)
        assert (whole.branches, whole.images) == ((branch,), (0, 1, 2))
        assert whole.rows(branch) == slice(0, 3)
        assert torch.equal(whole.latents, call.latents[call.rows(branch)])
        for images in ([2, 0], [1], [0, 1, 2], [2, 1, 0]):
            part = call.of(branch, images)
            assert (part.branches, part.images) == ((branch,), tuple(images))
            assert part.rows(branch) == slice(0, len(images))
            states = call.arguments["encoder_hidden_states"][call.rows(branch)]
            assert torch.equal(part.latents, whole.latents[images])
            assert torch.equal(part.arguments["encoder_hidden_states"], states[images])
            again = part.of(branch, images[-1:])  # by number, not by place
            assert again.images == (images[-1],)
            assert torch.equal(again.latents, whole.latents[images[-1:]])
            moved = part.with_latents(part.latents + 1)
            assert torch.equal(moved.latents, part.latents + 1)
            assert torch.equal(part.latents, whole.latents[images])
        with pytest.raises(ValueError, match="not in"):
            whole.of("skip")
    with torch.no_grad():
        both = denoiser_of(pipe)(**call.arguments)[0]
        part = call.of("cond", [2, 0])
        some = denoiser_of(pipe)(**part.arguments)[0]
    torch.testing.assert_close(some, both[call.rows("cond")][[2, 0]], rtol=0, atol=1e-10)


# 3. Edits that run the kernel again


def again(times):
    """Half the attention and half that with other keys; the kernel runs several times."""

    def blend(call, _):
        other = call.replace(key=call.key * 2)
        outputs = [call.run() for _ in range(times)]
        return (outputs[-1] + other.run()) / 2

    return blend


def test_how_often_an_edit_runs_the_kernel_changes_nothing_seen(name, pipe):
    """In whatever order the contexts are nested, outside or inside another edit: what losses and
    recordings see is the call that the edit was given."""
    results = []

    def warmer(call, _):
        return call.replace(key=call.key * 1.25)

    for times, order in [*((1, order) for order in ORDERS), (3, ORDERS[0]), (3, ORDERS[-1])]:
        contexts = {
            "edit": lambda times=times: edit(pipe, again(times), where=TEXT),
            "steer": lambda: steer(pipe, clearer, descent=descent()),
            "record": lambda: record(pipe, ["cat"], keep=("step",)),
        }
        with ExitStack() as stack:
            found = {verb: stack.enter_context(contexts[verb]()) for verb in order}
            latents = made(name, pipe, PROMPTS[:2])
        losses = [step.losses for step in found["steer"].steps]
        results.append((losses, latents, found["record"].layers))
    for losses, latents, layers in results[1:]:
        assert losses == results[0][0]
        assert torch.equal(latents, results[0][1])
        assert all(torch.equal(layers[site], results[0][2][site]) for site in layers)
    with edit(pipe, warmer, where=TEXT), edit(pipe, again(1), where=TEXT):
        one = made(name, pipe, PROMPTS[:2])
    with edit(pipe, warmer, where=TEXT), edit(pipe, again(3), where=TEXT):
        assert torch.equal(made(name, pipe, PROMPTS[:2]), one)


class Twice(AttnProcessor2_0):
    """As IP-Adapters do: a second attention to other keys in the same module, after the own one."""

    def __call__(self, attn, hidden_states, *args, **kwargs):
        output = super().__call__(attn, hidden_states, *args, **kwargs)
        heads = hidden_states.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        keys = heads[:, :, :3] * 5
        return output + F.scaled_dot_product_attention(heads, keys, keys).transpose(1, 2).flatten(2)


def test_a_second_attention_of_a_module_is_not_the_text():
    pipe, seen = tiny_sd(), []
    with record(pipe, ["cat"], where=Where(layers=(LAYER,)), keep=("step",)) as before:
        made("sd", pipe, steps=1)
    pipe.unet.get_submodule(LAYER).processor = Twice()
    plain = made("sd", pipe, steps=1)
    where = Where(layers=(LAYER,))
    with (
        edit(pipe, watched(seen), where=where),
        record(pipe, ["cat"], where=where, keep=("step",)) as maps,
        steer(pipe, clearer, where=where, descent=descent(0.0)),
    ):
        torch.testing.assert_close(made("sd", pipe, steps=1), plain, rtol=0, atol=1e-12)
    assert [now.purpose for _, now in seen] == ["gradient", "own"]
    assert all(call.key.shape[2] == pipe.tokenizer.model_max_length for call, _ in seen)
    assert torch.equal(maps.layers[LAYER], before.layers[LAYER])


# 4. Settings that are functions


@dataclass(frozen=True)
class Masked(Edit):
    """A mask that is a function of the grid, and a strength that follows the progress."""

    mask: Callable[[tuple[int, ...]], float]
    strength: float | Callable[[float], float]
    where = Where(kind=("self", "joint"))

    def __call__(self, call, now):
        factor = 1 + at(self.strength, now.progress) * self.mask(now.layout.grid)
        return call.replace(key=call.key * factor)


@pytest.mark.parametrize("verb", ["edit", "perturb", "heads", "several"])
def test_only_settings_that_follow_the_progress_are_called(name, pipe, verb):
    grids, shares, scales = set(), set(), set()

    def mask(grid):
        grids.add(grid)
        return 0.5

    def strength(progress):
        shares.add(progress)
        return progress

    def scale(progress):
        scales.add(progress)
        return 1.0 + progress

    mine = Masked(mask, strength)
    sites = [site for site in attach(pipe).sites.values() if site.kind in ("self", "joint")]
    context = {
        "edit": lambda: edit(pipe, mine),
        "heads": lambda: edit(pipe, mine, heads=[(site.name, 0) for site in sites]),
        "several": lambda: edit(pipe, [On(mine), On(mine, where=Where(kind=("self", "joint")))]),
        "perturb": lambda: perturb(pipe, mine, scale=scale),
    }[verb]
    with context():
        made(name, pipe, steps=3)
    assert shares == {0.0, 0.5, 1.0}
    assert scales == ({0.0, 0.5, 1.0} if verb == "perturb" else set())
    assert grids
    assert all(type(grid) is tuple and len(grid) == 2 for grid in grids)


def test_strength_that_follows_the_progress_is_that_of_the_step(name, pipe):
    """Equal to constants that act in one step each."""
    where = Where(kind=("self", "joint"))
    with edit(pipe, SoftIdentity(lambda progress: 0.25 + progress / 2), where=where):
        changing = made(name, pipe, steps=3)
    with ExitStack() as stack:
        for index in range(3):
            strength, share = 0.25 + index / 4, (index / 2, index / 2)
            stack.enter_context(edit(pipe, SoftIdentity(strength), where=where, steps=share))
        assert torch.equal(made(name, pipe, steps=3), changing)


# 5. Purposes


def test_edits_act_in_all_passes_but_probes_and_recorders_in_the_own(name, pipe):
    edited, heard, run_ = [], [], attach(pipe)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    def listen(call, now):
        heard.append(now.purpose)
        return call.run()

    def stronger(call, now):
        edited.append(now.purpose)
        return call.replace(key=call.key * 3)

    options = {"max_sequence_length": 16} if name != "sd" else {}
    outside = record_picture(pipe, picture, "a red cat", ["cat"], timestep=500.0, **options)
    with (
        edit(pipe, stronger, where=Where()),
        attach(pipe).hooked(Hooks(sites=run_.sites, listen=listen)),
        steer(pipe, clearer, descent=descent()),
        perturb(pipe, SoftIdentity(), scale=1.0, where=LAST[name]),
        record(pipe, ["cat"]) as maps,
    ):
        inside = record_picture(pipe, picture, "a red cat", ["cat"], timestep=500.0, **options)
        assert edited == heard == []
        made(name, pipe, steps=1)
        during = record_picture(pipe, picture, "a red cat", ["cat"], timestep=500.0, **options)
    assert set(edited) == {"own", "gradient", "weakened"}
    assert set(heard) == {"own"}
    assert len(heard) == len(run_.sites) * len(branches_of(name))
    assert maps.steps == (0,)
    for other in (inside, during):
        assert all(torch.equal(other.layers[s], outside.layers[s]) for s in outside.layers)


# The source has no gradient of others


def gradients_of(name, pipe, images, change, layers):
    """Losses of some images and their gradients, at the first step of a run."""
    run_, found = attach(pipe), []

    def before(call):
        if found or "cond" not in call.branches:
            return
        objective, known = as_objective(clearer), run_.sites.values()
        chosen = {site.name: site for site in layers.select(known)}
        view = View.of(run_.family, Gaze.of(objective, chosen, known), objective, call.text)
        scaled = change(call.latents[:3].double())
        found.append(loss_and_gradient(run_, view, call, torch.tensor(images), scaled))

    run_ = attach(pipe)
    with run_.hooked(Hooks(before=before)):
        made(name, pipe, steps=1)
    return found[0]


@pytest.mark.parametrize("images", [(0, 1, 2), (1, 2), (2,), (0,)])
def test_gradients_of_any_images_with_the_source_fixed(name, pipe, images, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # FLUX rotates in float32
    layers = Where(kind=("cross", "joint"))

    def moved(image=None, by=0.0):
        def change(latents):
            rng = torch.Generator().manual_seed(4)
            shift = 0.1 * torch.randn(latents.shape, generator=rng, dtype=torch.float64)
            direction = torch.randn(latents.shape, generator=rng, dtype=torch.float64)
            if image is not None:
                shift[image] += by * direction[image]
            directions[:] = [direction]
            return shift

        return change

    directions = []
    with edit(pipe, MutualAttention(start=0.0)):
        losses, gradient = gradients_of(name, pipe, images, moved(), layers)
        everybody, whole = gradients_of(name, pipe, (0, 1, 2), moved(), layers)
        torch.testing.assert_close(losses, everybody[list(images)], rtol=0, atol=1e-10)
        torch.testing.assert_close(gradient, whole[list(images)], rtol=1e-8, atol=1e-12)
        for place, image in enumerate(images):
            up, down = (
                gradients_of(name, pipe, [image], moved(image, by), layers)[0][0]
                for by in (1e-4, -1e-4)
            )
            slope = float((gradient[place] * directions[0][image]).sum())
            assert float(up - down) / 2e-4 == pytest.approx(slope, rel=1e-5, abs=1e-9)
            assert abs(slope) > 1e-6


def test_what_a_source_is(name, pipe):
    seen = []
    with edit(pipe, watched(seen), where=Where()):
        made(name, pipe, steps=1)
    for call, now in seen:
        everything = now.source(call, 1)
        picture = now.source(call, 1, "picture")
        for of in ("query", "key", "value"):
            own, whole, part = (getattr(each, of) for each in (call, everything, picture))
            for branch in now.branches:
                rows = range(len(own))[now.rows(branch)]
                for row in rows:
                    assert torch.equal(whole[row], own[rows[1]])
                    if call.site.kind != "joint":
                        assert torch.equal(part[row], own[rows[1]])
                        continue
                    text, cells = now.layout.text, now.layout.image
                    assert torch.equal(part[row, :, text], own[row, :, text])
                    assert torch.equal(part[row, :, cells], own[rows[1], :, cells])


# What losses see is what is recorded


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_losses_see_the_maps_that_are_recorded(name, pipe, order):
    seen, where = [], Where(kind=("cross", "joint"))

    def objective(maps):
        seen.append(({n: of.detach() for n, of in maps.layers.items()}, maps.tokens))
        return maps.mean().flatten(1).mean(1)

    contexts = {
        "edit": lambda: edit(pipe, again(2), where=where),
        "steer": lambda: steer(pipe, objective, where=where, descent=descent(0.0)),
        "record": lambda: record(pipe, where=where, keep=("step", "head")),
    }
    with ExitStack() as stack:
        stack.enter_context(edit(pipe, MutualAttention(start=0.0)))
        found = {verb: stack.enter_context(contexts[verb]()) for verb in order}
        made(name, pipe, PROMPTS[:2])
    recorded = found["record"].layers
    assert len(seen) == 2
    assert set(seen[0][0]) == set(recorded)
    for step, (layers, tokens) in enumerate(seen):
        for site, maps in layers.items():
            for image in range(2):
                places = [token.index for token in tokens[image]]
                wanted = recorded[site][image, 0, step][..., places]
                torch.testing.assert_close(maps[image].float(), wanted, rtol=0, atol=1e-6)


# Nesting orders


ALL_ORDERS = list(itertools.permutations(("edit", "steer", "perturb", "record")))


def in_order(name, pipe, order, settings, *, count=3, steps=2):
    contexts = {
        "edit": lambda: edit(pipe, MutualAttention(start=0.0)),
        "steer": lambda: steer(pipe, clearer, descent=settings),
        "perturb": lambda: perturb(pipe, SoftIdentity(0.5), scale=2.0, where=LAST[name]),
        "record": lambda: record(pipe, ["cat"], keep=("step", "head")),
    }
    with ExitStack() as stack:
        found = {verb: stack.enter_context(contexts[verb]()) for verb in order}
        latents = made(name, pipe, PROMPTS[:count], steps=steps)
    return latents, found


def test_all_nesting_orders_are_the_same(name, pipe):
    refined = descent(thresholds={0.0: -1.0}, max_refinements=1)
    for steps, orders in ((1, ALL_ORDERS), (3, (ALL_ORDERS[0], ALL_ORDERS[-1]))):
        latents, found = in_order(name, pipe, orders[0], refined, count=2, steps=steps)
        refinements = [step.refinements for step in found["steer"].steps]
        assert refinements == [(0, 1), (0, 0), (0, 0)][:steps]
        for order in orders[1:]:
            others, also = in_order(name, pipe, order, refined, count=2, steps=steps)
            assert torch.equal(others, latents), order
            assert also["steer"].steps == found["steer"].steps
            layers, same = found["record"].layers, also["record"].layers
            assert all(torch.equal(same[site], layers[site]) for site in layers)


@pytest.mark.parametrize(
    "verbs", [(), ("steer",), ("perturb",), ("steer", "perturb")], ids="-".join
)
def test_the_source_is_not_changed(name, pipe, verbs):
    """With and without edit it has the same refinements."""
    refined = descent(thresholds={0.0: 0.999}, max_refinements=1)  # all of them are refined
    plain, _ = in_order(name, pipe, verbs, refined)
    changed, found = in_order(name, pipe, (*verbs, "edit"), refined)
    if "steer" in verbs:
        assert found["steer"].steps[0].refinements == (1, 1, 1)
    assert torch.equal(changed[0], plain[0])
    assert (changed[1:] - plain[1:]).abs().max() > 1e-3


# Against a loop that is written out


class Written:
    """Attention of Stable Diffusion written out, with MasaCtrl or prompt-to-prompt; rows are
    branch by branch, image 0 is the source. ``maps`` are those of cross-attention, in order."""

    def __init__(self, edit, edited, steered):
        self.edit, self.edited, self.steered = edit, edited, steered
        self.progress, self.branches, self.maps = 0.0, ("uncond", "cond"), []

    def processor(self, site):
        def attention(attn, hidden_states, encoder_hidden_states=None, **_):
            states = hidden_states if encoder_hidden_states is None else encoder_hidden_states
            given = attn.to_q(hidden_states), attn.to_k(states), attn.to_v(states)
            q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in given)
            images = len(q) // len(self.branches)
            probabilities = []
            values = []
            for row in range(len(q)):
                branch, source = self.branches[row // images], row - row % images
                kq, kk, kv = q[row], k[row], v[row]
                takes = row != source and site.name in self.edited
                if takes and self.edit == "masactrl" and site.kind == "self":
                    kk, kv = k[source].detach(), v[source].detach()
                share = {"cross": 0.8, "self": 0.4}[site.kind]
                swaps = branch == "cond" and self.progress < share
                if takes and self.edit == "p2p" and swaps:
                    kq, kk = q[source].detach(), k[source].detach()
                probabilities.append((kq @ kk.transpose(-1, -2) * attn.scale).softmax(-1))
                values.append(kv)
            probabilities = torch.stack(probabilities)
            if site.name in self.steered:
                self.maps.append(probabilities)
            output = (probabilities @ torch.stack(values)).transpose(1, 2).flatten(2)
            return attn.to_out[0](output)

        return attention


def swapped_loss(maps, image):
    """Of one image, from its mean map [cell token]; the second one is never at its target."""
    return [0.5, 10.0][image] + maps[:, CAT].mean() + (maps[:, CAT] ** 2).sum()


def objective_of(prompts):
    def loss(maps):
        means = maps.mean().flatten(1, 2)
        return torch.stack(
            [swapped_loss(m, prompts.index(p)) for m, p in zip(means, maps.prompts, strict=True)]
        )

    return loss


def by_hand(pipe, prompts, latents, written, settings, *, steps, guidance, both):
    """``both``: whether the source is refined too."""
    scheduler, unet = pipe.scheduler, pipe.unet
    states = pipe.encode_prompt(list(prompts), "cpu", 1, True, negative_prompt=["", ""])
    cond, uncond = states[0], states[1]
    scheduler.set_timesteps(steps)
    counts = []

    def evaluate(z, t):
        written.maps.clear()
        written.branches = ("cond",)
        leaf = z.detach().requires_grad_()
        with torch.enable_grad():
            unet(leaf, t, cond)
            mean = torch.cat(written.maps, 1).mean(1)
            losses = [swapped_loss(mean[image], image) for image in range(2)]
            total = sum(loss for loss in losses if loss.requires_grad)
            (gradient,) = torch.autograd.grad(total, leaf)
        return gradient

    for i, t in enumerate(scheduler.timesteps):
        written.progress = i / (steps - 1)
        alpha = settings.step_size * (1 + (settings.final - 1) * i / (steps - 1)) ** 0.5
        gradient = evaluate(latents, t)
        count = [0, 0]
        if i == 0:
            for _ in range(settings.max_refinements):
                active = [0, 1] if both else [1]
                latents = latents.clone()
                for image in active:
                    latents[image] -= alpha * gradient[image]
                    count[image] += 1
                gradient_then = gradient
                gradient = evaluate(latents, t)
                if not both:
                    gradient = torch.stack([gradient_then[0], gradient[1]])
        counts.append(tuple(count))
        latents = latents - alpha * gradient
        written.branches = ("uncond", "cond")
        with torch.no_grad():
            prediction = unet(latents.repeat(2, 1, 1, 1), t, torch.cat([uncond, cond])).sample
            low, high = prediction.chunk(2)
            prediction = low + guidance * (high - low)
            latents = scheduler.step(prediction, t, latents).prev_sample
    return latents, counts


P2P_SITES = {
    "elsewhere": Where(layers=("down_blocks.0", "up_blocks.2")),  # not where the loss looks
    "everywhere": Where(kind=("self", "cross")),
}


def test_a_warning_says_that_nothing_is_steered():
    """All attention of the image that is steered is that of a source, which is not."""
    pipe, prompts = tiny_sd(), PROMPTS[:2]
    everywhere, steered = P2P_SITES["everywhere"], Where(kind="cross", stride=2)
    with (
        pytest.warns(UserWarning, match="no loss depends on the latents of its image"),
        edit(pipe, Replace(cross=1.0, among=1.0), where=everywhere),
        steer(pipe, objective_of(prompts), where=steered, descent=descent(30.0), images=(1,)),
    ):
        pipe(prompts, height=64, width=96, num_inference_steps=2, output_type="latent")


@pytest.mark.parametrize("both", [False, True], ids=["target refined", "both refined"])
@pytest.mark.parametrize("method", ["masactrl", "elsewhere", "everywhere"])
def test_steer_under_an_edit_equals_a_loop_by_hand(method, both):
    pipe, prompts = tiny_sd(), PROMPTS[:2]
    rng = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 12, generator=rng, dtype=torch.float64)
    steered = Where(kind="cross", stride=2)
    target = 0.9 if both else -2.0
    settings = descent(30.0, thresholds={0.0: target}, max_refinements=2)
    swap = method != "masactrl"
    edits = (Replace(), P2P_SITES[method]) if swap else (MutualAttention(start=0.0), None)
    sites = attach(pipe).sites
    with ExitStack() as stack:
        stack.enter_context(edit(pipe, edits[0], where=edits[1]))
        steering = steer(pipe, objective_of(prompts), where=steered, descent=settings)
        trace = stack.enter_context(steering)
        got = pipe(
            prompts, latents=latents, height=64, width=96, num_inference_steps=3,
            guidance_scale=4.0, output_type="latent",
        ).images  # fmt: skip
    edited = (edits[1] or Where(kind=("self", "joint"))).select(sites.values())
    written = Written(
        "p2p" if swap else "masactrl",
        {site.name for site in edited},
        {site.name for site in steered.select(sites.values())},
    )
    for site in sites.values():
        pipe.unet.get_submodule(site.name).processor = written.processor(site)
    wanted, counts = by_hand(
        pipe, prompts, latents, written, settings, steps=3, guidance=4.0, both=both
    )
    if method != "everywhere":
        assert [step.refinements for step in trace.steps] == counts
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)
    assert (got[0] - got[1]).abs().max() > 1e-2
