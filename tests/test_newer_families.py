"""The newer families, each on a tiny pipeline of its real classes: what is recorded against the
explicit softmax, a step of steering against a gradient taken by hand, an edit against the same one
put into the kernel. Positions of words are those of the ids that reach the text encoder, which are
caught there; where text and picture begin is written down from the models' code (``tests.kit``)."""

import math
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch

from attncontrol import Descent, edit, locate, record, steer
from attncontrol.attention.edit import Edit
from attncontrol.attention.sites import Where
from attncontrol.errors import CallError, ModelError
from attncontrol.running.session import Hooks, attach
from tests.kit.known import ALL, PROMPTS, WORDS, Tiny, noisy_of, seen_by_hooks, with_noisy
from tests.kit.zoo_newer import photo
from tests.kit.zoo_videos import ltx2_connectors
from tests.reference.loops import Softmax

GRID = (4, 6)
BEFORE = "<|im_start|>user\n<image1><|vision_start|>"  # a reference picture of Qwen-Image 2.1
pytestmark = pytest.mark.filterwarnings("ignore:`LoraLoaderMixin`")


@pytest.fixture(params=ALL, scope="module")
def tiny(request):
    with pytest.MonkeyPatch.context() as patched:
        for name, value in ALL[request.param].patches:
            patched.setattr(name, value, raising=False)
        tiny = Tiny(request.param)
        with tiny.caught() as (tiny.ids, calls):
            tiny.plain = tiny.run()
        read = calls[0].get("encoder_hidden_states", calls[0].get("input_ids", [()]))
        tiny.length = len(read[0])  # of the text
        yield tiny


@contextmanager
def watched(tiny, monkeypatch, seen):
    """Appends the probabilities of every text site."""
    softmax = Softmax(monkeypatch)
    hooks = [
        tiny.denoiser.get_submodule(site).register_forward_hook(
            lambda *_, site=site: seen.append((site, softmax.seen[-1])), always_call=True
        )
        for site in tiny.sites
    ]
    yield
    for hook in hooks:
        hook.remove()
    monkeypatch.undo()


def of_word(tiny, probabilities, word, ids):
    """The share that the pieces of a word have of each cell [row head height width]."""
    cells = math.prod(tiny.known.grid)
    first, width = tiny.known.picture(cells, tiny.length), tiny.known.grid[-1]
    own = [first + k // width * width * tiny.known.line + k % width for k in range(cells)]
    columns = [tiny.known.text(cells, tiny.length) + p for p in tiny.positions(word, ids)]
    return probabilities[..., own, :][..., columns].sum(-1).unflatten(-1, tiny.known.grid)


def test_recorded_maps_equal_the_explicit_softmax(tiny, monkeypatch):
    seen = []
    with watched(tiny, monkeypatch, seen):
        tiny.run()
    words = {prompt: WORDS[prompt] for prompt in tiny.prompts}
    with record(tiny.pipe, words, where=tiny.known.where, keep=("head", "step")) as maps:
        assert torch.equal(tiny.run(), tiny.plain)
    assert set(maps.layers) == set(tiny.sites)
    for site in tiny.sites:
        steps = [p for name, p in seen if name == site][:: tiny.known.calls]
        for step, probabilities in enumerate(steps):
            rows = tiny.cond(probabilities)
            for image, prompt in enumerate(tiny.prompts):
                for k, word in enumerate(WORDS[prompt]):
                    torch.testing.assert_close(
                        maps.layers[site][image, 0, step, ..., k],
                        of_word(tiny, rows[image], word, tiny.ids).float(),
                        rtol=0, atol=max(tiny.known.tolerance, 1e-6),
                    )  # fmt: skip


def test_words_are_located_where_the_text_encoder_reads_them(tiny):
    """In a run of their prompt alone: some pipelines fill up to the longest prompt of a batch."""
    for prompt in tiny.prompts:
        with tiny.caught() as (ids, _):
            tiny.run(prompt, num_inference_steps=1)
        for word in WORDS[prompt]:
            found = locate(tiny.pipe, prompt, word, **tiny.known.options)
            assert list(found.positions) == tiny.positions(word, ids)


def test_every_attention_that_runs_is_a_site(tiny):
    ran = set()
    hooks = [
        module.register_forward_hook(lambda *_, n=name: ran.add(n))
        for name, module in tiny.denoiser.named_modules()
        if hasattr(module, "processor")
    ]
    tiny.run()
    for hook in hooks:
        hook.remove()
    left_out = {name for name in ran if name.startswith(tiny.known.left_out or "-")}
    sites = {site.name for site in tiny.family.sites(tiny.denoiser)}
    assert sites == ran - left_out
    assert bool(left_out) == bool(tiny.known.left_out)


def test_a_step_follows_the_gradient_taken_by_hand(tiny, monkeypatch):
    """The loss is the sum over cells of the squared share of a word, mean over all heads, of a
    video the mean over its frames."""
    with tiny.caught() as (ids, calls):
        plain = tiny.run(PROMPTS[0])
    positions = tiny.positions("turtle", ids)

    def strength(maps):
        of_word = [k for k, token in enumerate(maps.tokens[0]) if token.index in positions]
        assert len(of_word) == len(positions)
        return maps.mean()[..., of_word].sum(-1).square().flatten(1).sum(1)

    if isinstance(tiny.family.steering, str):
        with pytest.raises(ModelError, match="not steered"), steer(tiny.pipe, strength):
            pass
        return
    name, seen = tiny.family.sample, []
    sample = noisy_of(calls[0][name])
    leaf = sample.clone().requires_grad_()
    with watched(tiny, monkeypatch, seen):
        tiny.denoiser(**calls[0] | {name: with_noisy(calls[0][name], leaf)})
    shares = [of_word(tiny, tiny.cond(p)[0], "turtle", ids) for _, p in seen]
    frames = (1, *tiny.known.grid)[-3]
    loss = torch.cat(shares).mean(0).square().sum() / frames
    (gradient,) = torch.autograd.grad(loss, leaf)
    wanted = -20 * tiny.cond(gradient)
    assert wanted.abs().max() > 0
    descent = Descent(step_size=20.0, guided=0.5, thresholds={})
    switches = [tiny.denoiser.disable_gradient_checkpointing]
    if not tiny.known.checkpointing:
        tiny.denoiser.enable_gradient_checkpointing()
        with pytest.raises(ModelError, match="checkpointing"), steer(tiny.pipe, strength):
            tiny.run(PROMPTS[0])
    elif tiny.denoiser._supports_gradient_checkpointing and not tiny.known.references:
        switches.insert(0, tiny.denoiser.enable_gradient_checkpointing)
    for switch in switches:
        switch()
        with (
            steer(tiny.pipe, strength, where=tiny.known.where, descent=descent),
            tiny.caught() as (_, steered),
        ):
            guided = tiny.run(PROMPTS[0])
        assert (guided - plain).abs().max() > 0
        change = noisy_of(steered[0][name]) - sample
        part = tiny.family.latents(tiny.denoiser, calls[0])
        moved = change[part].chunk(len(gradient) // len(wanted))
        assert float(change.abs().sum() - change[part].abs().sum()) == pytest.approx(0.0, abs=1e-9)
        for rows in moved:  # all branches of the picture move alike
            error = (rows - wanted[part]).abs().max() / wanted[part].abs().max()
            assert error < 100 * tiny.known.tolerance


def test_an_edit_of_words_equals_the_same_in_the_kernel(tiny, monkeypatch):
    """Nobody looks at a word of each picture in the conditional rows."""
    words = {prompt: WORDS[prompt][-1] for prompt in tiny.prompts}
    hidden = []

    def hide(call, now):
        allowed = torch.ones(len(call.key), 1, 1, call.key.shape[2], dtype=torch.bool)
        first = now.layout.text.indices(call.key.shape[2])[0]
        for row in range(len(call.key))[now.rows("cond")]:
            image = now.image_of_row(row)
            positions = now.span(words[tiny.prompts[image]], image).positions
            allowed[row, ..., [first + p for p in positions]] = False
        return call.masked(allowed)

    def in_kernel(query, key, value, attn_mask=None, **options):
        here[:] = [n - 1 for n in here]
        if here == [-1] and turn[0] % tiny.known.calls == 0:
            allowed = torch.ones(len(key), 1, 1, key.shape[2], dtype=torch.bool)
            cond = tiny.cond(allowed)
            for image, prompt in enumerate(tiny.prompts):
                positions = tiny.positions(words[prompt], tiny.ids)
                first = tiny.known.text(math.prod(tiny.known.grid), tiny.length)
                cond[image, ..., [first + p for p in positions]] = False
            hidden.append(None)
            bias = torch.zeros(allowed.shape, dtype=query.dtype).masked_fill(~allowed, -torch.inf)
            if attn_mask is not None and attn_mask.dtype == torch.bool:
                attn_mask = bias.masked_fill(~attn_mask, -torch.inf)
            else:
                attn_mask = bias if attn_mask is None else attn_mask + bias
        return kernel(query, key, value, attn_mask=attn_mask, **options)

    with edit(tiny.pipe, hide, where=tiny.known.where):
        edited = tiny.run()
    here, turn, kernel = [], [-1], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", in_kernel)

    def next_call(*_):
        turn[0] += 1

    def before():
        apart = tiny.known.apart if turn[0] < tiny.known.calls else 0
        return tiny.known.before + apart

    hooks = [tiny.denoiser.register_forward_pre_hook(next_call)]
    for site in tiny.sites:
        module = tiny.denoiser.get_submodule(site)
        hooks.append(module.register_forward_pre_hook(lambda *_: here.append(before())))
        hooks.append(module.register_forward_hook(lambda *_: here.clear()))
    expected = tiny.run()
    for hook in hooks:
        hook.remove()
    monkeypatch.undo()
    assert len(hidden) == 2 * len(tiny.sites)
    assert (edited - tiny.plain).abs().max() > tiny.known.tolerance
    torch.testing.assert_close(edited, expected, rtol=0, atol=10 * tiny.known.tolerance)


def test_references_follow_the_picture(tiny):
    grids = []

    def look(call, now):
        places = [now.layout, *now.layout.references]
        ends = [range(call.key.shape[2])[place.image_slice] for place in places]
        if tiny.known.apart:  # they lie where they are read
            assert ends[0].start > ends[2].stop > ends[2].start > ends[1].stop
            assert ends[1].start == len(tiny.pipe.processor.tokenizer(BEFORE).input_ids)
            ends = ends[:1]
        assert all(a.stop == b.start for a, b in pairwise(ends))
        assert ends[-1].stop == (now.layout.text.start or call.key.shape[2])  # text may be last
        grids.append(tuple(place.grid for place in places))
        return call

    if tiny.known.references:
        with edit(tiny.pipe, look, where=tiny.known.where):
            tiny.run(num_inference_steps=1)
        assert set(grids) == {(tiny.known.grid, *tiny.known.references)}


def test_latents_are_seen_as_channels_of_a_grid(tiny):
    """Of lines and columns as the cells, and frames or items that are those of the video but for
    given ones."""
    seen, (*frames, height, width) = [], tiny.known.grid
    session, references = attach(tiny.pipe), []

    def before(call):
        site = session.sites[tiny.sites[0]]
        layout = tiny.family.layout(session.denoiser, call.arguments, site)
        references[:] = [of.grid for of in layout.references]

    def ended(latents, now):
        seen.append((latents.shape, now.layout.grid))

    with session.hooked(Hooks(session.sites, before=before, ended=ended)):
        tiny.run(num_inference_steps=1)
    shape, grid = seen[-1]
    if session.family.patched or len(shape) == 3:
        return
    assert tuple(shape[2:]) == grid
    assert grid[-2] * width == grid[-1] * height
    own = math.prod(frames)
    given = sum(math.prod(of[:-2]) for of in references)
    assert math.prod(grid[:-2]) in {own, own - 1, own + given}


def test_longcat_reads_quotations_letter_by_letter():
    tiny = Tiny("longcat")
    prompt = "a 'dog' and a turtle"
    with tiny.caught() as (ids, _), record(tiny.pipe, ["turtle"]) as maps:
        tiny.run(prompt, num_inference_steps=1)
    found = locate(tiny.pipe, prompt, "turtle")
    assert list(found.positions) == tiny.positions("turtle", ids)
    assert len(locate(tiny.pipe, prompt, "dog").positions) == 3
    assert maps["turtle"].shape == (1, *GRID)


def test_cogview4_fills_up_to_the_longest_prompt_of_a_batch():
    tiny = Tiny("cogview4")
    prompts = ["a dog", "a red cat and a turtle " * 2]
    with tiny.caught() as (ids, _), record(tiny.pipe, ["a"]) as maps:
        tiny.run(prompts, num_inference_steps=1)
    alone = locate(tiny.pipe, prompts[0], "dog").positions[0]
    longest = len(ids[0])
    assert longest == 32 != 16
    assert tiny.positions("dog", ids) == [alone + 16]
    assert maps.tokens[0][alone + 16].text == "dog"


def test_hunyuanimage_reads_quotations_before_the_prompt():
    """ByT5 has a position for every letter of Text "dog". and one for its end."""
    tiny = Tiny("hunyuanimage")
    prompt = 'a "dog" and a turtle'
    with tiny.caught() as (ids, _), record(tiny.pipe, ["turtle"]) as maps:
        tiny.run(prompt, num_inference_steps=1)
    found = locate(tiny.pipe, prompt, "turtle")
    before = len('Text "dog". ') + 1
    assert list(found.positions) == [before + p for p in tiny.positions("turtle", ids)]
    assert maps["turtle"].shape == (1, *GRID)


@pytest.fixture(scope="module")
def ltx2():
    tiny = Tiny("ltx2")
    tiny.length = tiny.known.options["max_sequence_length"]
    return tiny


def test_of_the_calls_of_ltx2_in_a_step_the_first_is_recorded(ltx2, monkeypatch):
    """Spatio-temporal and modality guidance call it once more each; sound has its own scheduler, a
    copy, whose steps are none of the video's."""
    guidance = {"stg_scale": 1.0, "modality_scale": 3.0, "guidance_rescale": 0.7}
    guidance |= {f"audio_{name}": scale for name, scale in guidance.items()}
    guidance |= {"spatio_temporal_guidance_blocks": [1]}
    seen, stepped = [], []

    class Steps(Edit):
        def __call__(self, call, _):
            return call

        def stepped(self, latents, now):
            stepped.append((now.progress, tuple(latents.shape)))
            return latents

    with watched(ltx2, monkeypatch, seen):
        plain = ltx2.run(PROMPTS[0], **guidance)
    with (
        edit(ltx2.pipe, Steps(), where=Where()),
        record(ltx2.pipe, ["turtle"], keep=("head", "step")) as maps,
        ltx2.caught() as (ids, calls),
    ):
        assert torch.equal(ltx2.run(PROMPTS[0], **guidance), plain)
    assert [len(call["hidden_states"]) for call in calls] == [2, 1, 1] * 2
    assert stepped == [(0.0, (1, 48, 4)), (1.0, (1, 48, 4))]
    assert maps.about["steps"] == 2
    for site in ltx2.sites:
        first = [probabilities for name, probabilities in seen if name == site][::3]
        for step, probabilities in enumerate(first):
            wanted = of_word(ltx2, probabilities[1], "turtle", ids).float()
            torch.testing.assert_close(
                maps.layers[site][0, 0, step, ..., 0], wanted, rtol=0, atol=1e-6
            )


def test_videos_of_prompts_whose_masks_ltx2_mixes_up_are_refused(ltx2):
    refused = pytest.raises(CallError, match="give a prompt for every video")
    with refused, record(ltx2.pipe, ["cat"]):
        ltx2.run(["a red cat", "a cat"], num_videos_per_prompt=2)
    with record(ltx2.pipe, ["cat"]) as maps:
        ltx2.run(["a red cat", "a big cat"], num_videos_per_prompt=2)
    assert len(maps["cat"]) == 4


def test_the_connectors_of_ltx2_put_the_text_in_front(ltx2, monkeypatch):
    """Without their attention a changed word changes its own key and those of the words after it,
    and registers stand behind the text."""
    monkeypatch.setattr(ltx2.pipe, "connectors", ltx2_connectors(0, True).to(torch.float64))
    states = []
    for prompt in (PROMPTS[0], PROMPTS[0].replace("cat", "dog"), "  a dog "):
        with ltx2.caught() as (_, calls), torch.no_grad():
            ltx2.run(prompt, num_inference_steps=1)
        states.append(calls[0]["encoder_hidden_states"][1])
    cat, dog, short = states
    changed = (cat != dog).any(-1).nonzero().flatten().tolist()
    (place,) = locate(ltx2.pipe, PROMPTS[0], "cat", max_sequence_length=16).positions
    last = locate(ltx2.pipe, PROMPTS[0], "turtle", max_sequence_length=16).positions[-1]
    assert changed == list(range(place, last + 2))  # and the end of the text
    assert torch.equal(short[8:], cat[8:])
    assert locate(ltx2.pipe, "  a dog ", "dog", max_sequence_length=16).positions == (1,)


def test_nucleus_fills_up_to_the_longest_prompt_of_a_batch_on_either_side():
    tiny = Tiny("nucleus")
    tiny.pipe.processor.tokenizer.padding_side = "left"
    with tiny.caught() as (ids, _), record(tiny.pipe, ["a"]) as maps:
        tiny.run(num_inference_steps=1)
    assert len(ids[0]) % 8 == 0
    alone = locate(tiny.pipe, PROMPTS[1], "dog", **tiny.known.options).positions[0]
    (place,) = tiny.positions("dog", ids)
    assert place > alone
    assert maps.tokens[1][place].text == "dog"
    assert len(maps.tokens[1]) == len(ids[0])


def test_the_gist_of_fibo2_lies_behind_the_picture_where_prompts_have_other_lengths():
    tiny = Tiny("fibo2")
    prompts = [PROMPTS[0], "a dog " * 40]
    latents = torch.randn(2, 1, 8, 12, generator=torch.Generator().manual_seed(5))

    def maps_of(prompt, of):
        with record(tiny.pipe, ["a"], keep=("head", "step")) as maps:
            tiny.run(prompt, latents=of, num_inference_steps=1)
        return maps.layers

    both = maps_of(prompts, latents)
    for image, prompt in enumerate(prompts):
        for site, alone in maps_of(prompt, latents[image : image + 1]).items():
            torch.testing.assert_close(both[site][image], alone[0], rtol=0, atol=1e-5)


def test_captions_of_fibo2_are_read_as_its_pipeline_writes_them():
    tiny, caption = Tiny("fibo2"), '{"short_description": "a dog", "colour":   "", "mood": "a cat"}'
    with tiny.caught() as (ids, _), record(tiny.pipe, ["cat"]) as maps:
        tiny.run(caption, num_inference_steps=1)
    assert maps.prompts == ('{"short_description":"a dog","mood":"a cat"}',)
    assert list(maps.spans[0][0].positions) == tiny.positions("cat", ids)
    with pytest.raises(CallError, match="render_text_images=False"):
        locate(tiny.pipe, caption, "cat", text_images=[[photo(8, 8, 0)]])
    edited = pytest.raises(CallError, match="pictures to edit is not described")
    state = {"context_latents": [torch.zeros(1, 1, 8, 12)]}
    with edited:
        tiny.family.layout(tiny.denoiser, state, tiny.family.sites(tiny.denoiser)[0])


def test_lumina_reads_prompts_that_are_filled_up_from_the_left():
    """As Gemma's own tokenizer does it; a negative prompt is as long as the prompts."""
    tiny = Tiny("lumina")
    tokenizer = tiny.pipe.tokenizer
    tokenizer.padding_side = "left"
    rows = tokenizer(PROMPTS, padding=True, pad_to_multiple_of=8).input_ids
    rows += tokenizer(["a frog " * 20], padding="max_length", truncation=True,
                      max_length=len(rows[0])).input_ids  # fmt: skip
    encoding = {"prompt": PROMPTS, "negative_prompt": "a frog " * 20}
    for text, row in zip([*PROMPTS, "a frog " * 20], rows, strict=True):
        tokens = tiny.family.tokens(tiny.pipe, text, encoding)
        assert [token.id for token in tokens] == row


@pytest.fixture(scope="module")
def omnigen():
    return Tiny("omnigen")


def test_all_rows_of_omnigen_are_read_as_its_transformer_embeds_them(omnigen):
    """Two images of each prompt, one of which is longer than the negative prompt."""
    prompts, calls = [PROMPTS[1], "a red cat and a turtle " * 20], []
    with omnigen.caught() as (ids, _):
        seen_by_hooks(
            omnigen, prompts, lambda _, call, __: calls.append(call), num_images_per_prompt=2
        )
    assert [call.branches for call in calls] == [("cond", "uncond")] * 2
    assert [(call.step.noise, call.step.noise_after) for call in calls] == [(1.0, 0.5), (0.5, 0.0)]
    text = calls[0].text
    assert text.prompts == tuple(prompt for prompt in prompts for _ in range(2))
    for branch, rows in (("cond", ids[:4]), ("uncond", ids[4:8])):
        for image, row in enumerate(rows):
            tokens = text.of(branch).tokens(image)
            assert [token.id for token in tokens] == row
            said = [token for token in tokens if not token.special]
            assert (said[0].start, said[-1].end) == (0, len(text.of(branch).prompts[image]))
    assert text.of("uncond").prompts[0].startswith("low quality")


def test_passes_of_some_images_of_omnigen_rotate_as_its_own(omnigen):
    """It rotates all rows by the positions of the first, whatever text they have."""
    errors = []

    def look(session, call, prediction):
        for image in (0, 1):
            alone = session.forward(call.of("cond", [image]), "probe")[0]
            errors.append(float((alone - prediction[image : image + 1]).abs().max()))

    seen_by_hooks(omnigen, PROMPTS[::-1], look)  # the second text begins before the first
    assert len(errors) == 4
    assert max(errors) < 1e-12


def test_what_omnigen_cannot_have_is_refused_by_name(omnigen, monkeypatch):
    processor = omnigen.pipe.multimodal_processor
    read = processor.process_multi_modal_prompt
    monkeypatch.setattr(
        processor, "process_multi_modal_prompt", lambda text, _: read(text.replace("dog", "cat"), _)
    )
    with (
        pytest.raises(CallError, match="transformer of OmniGenPipeline did not read 'a dog'"),
        record(omnigen.pipe, ["dog"]),
    ):
        omnigen.run("a dog")
