"""The same verbs on every architecture: what is recorded and steered, against explicit softmax and
hand-written loops."""

import re

import pytest
import torch

from attncontrol import Descent, Where, locate, record, steer
from attncontrol.attention.sites import TEXT
from attncontrol.errors import CallError, ModelError
from attncontrol.families.known import family_of
from attncontrol.losses import AttendAndExcite
from tests.kit.runs import ALL, OPTIONS, PROMPTS, run
from tests.kit.tapping import tap
from tests.kit.zoo import MORE
from tests.kit.zoo_chat import CHAT, VIDEO
from tests.reference.loops import Softmax

UNSTEERABLE = ("hidream",)
TWO_CALLS = ("qwenimage", "lumina2", "klein", "wan")
SINGLE = ("hunyuandit", "zimage", "wan")  # parts compute in float32


@pytest.fixture(params=ALL, scope="module")
def named(request):
    return request.param, ALL[request.param]()


def text_sites(pipe):
    family = family_of(pipe)
    return [site for site in family.sites(family.denoiser(pipe)) if site.kind != "self"]


def test_recorded_maps_equal_the_explicit_softmax(named, monkeypatch):
    name, pipe = named
    denoiser = family_of(pipe).denoiser(pipe)
    sites = text_sites(pipe)
    kept = {}
    softmax = Softmax(monkeypatch)
    hooks = []
    for site in sites:
        module = denoiser.get_submodule(site.name)
        hooks.append(
            module.register_forward_hook(
                lambda *_, s=site.name: kept.setdefault(s, []).append(softmax.seen[-1]),
                always_call=True,
            )
        )
    run(name, pipe, PROMPTS)
    for hook in hooks:
        hook.remove()
    monkeypatch.undo()
    with record(
        pipe, {PROMPTS[0]: ["cat", "turtle"], PROMPTS[1]: ["dog", "a"]}, keep=("head", "step")
    ) as maps:
        run(name, pipe, PROMPTS)
    assert set(maps.layers) == {site.name for site in sites}
    for site in sites:
        conditional = kept[site.name][:: 2 if name in TWO_CALLS else 1]
        expected = torch.stack(
            [p[:2] if name == "zimage" else p[-2:] for p in conditional]
        )  # step image head query key
        recorded = maps.layers[site.name][:, 0]  # image step head *grid word
        grid = recorded.shape[3:-1]
        assert grid[-2] * 3 == grid[-1] * 2
        assert (len(grid) == 3) == (name in VIDEO)
        for image, prompt in enumerate(PROMPTS):
            first_image, first_text = offsets(name, pipe, prompt, expected.shape[-2], grid.numel())
            queries = slice(first_image, first_image + grid.numel())
            for k, word in enumerate(maps.labels[image]):
                positions = [first_text + p for p in positions_of(name, pipe, prompt, word)]
                of_word = expected[:, image, :, queries][..., positions].sum(-1)
                tolerance = 3e-5 if name in SINGLE else 1e-6
                torch.testing.assert_close(
                    recorded[image, ..., k],
                    of_word.unflatten(2, grid).float(),
                    rtol=0,
                    atol=tolerance,
                )


def offsets(name, pipe, prompt, queries, picture):
    """Where the picture and the text begin, written down from the models' code."""
    if name in ("flux", "chroma", "auraflow", "klein", "flux2", "qwenimage", "cogvideox"):
        return queries - picture, {"auraflow": 8}.get(name, 0)
    if name == "lumina2":
        return len(texts_of(name, pipe, prompt)), 0
    return 0, {"sd3": picture, "sd35": picture, "zimage": 32, "hidream": 64}.get(name, 0)


CLIP = {"cat": [3], "turtle": [6, 7], "dog": [2], "a": [1]}  # after the start token
T5 = {"cat": [2], "turtle": [5, 6], "dog": [1], "a": [0]}
PIECES = {"cat": "cat", "turtle": "tur tle", "dog": "dog", "a": "a"}


def positions_of(name, pipe, prompt, word):
    if name in ("sd", "sdxl"):
        return CLIP[word]
    if name in ("flux", "pixart", "chroma", "auraflow", "sana", *VIDEO):
        return T5[word]
    if name == "hidream":
        llama = run_of(PIECES[word].split(), plain(pipe.tokenizer_4, prompt))
        return T5[word] + [32 + k for k in llama] + [64 + k for k in llama]
    if name in CHAT:
        texts = texts_of(name, pipe, prompt)
        before = {"lumina2": [">"], "flux2": ["<|im_start|>", *"user"]}.get(
            name
        )  # ends what is written before the prompt
        return run_of(PIECES[word].split(), texts, run_of(before, texts)[-1] if before else 0)
    return CLIP[word] + [(77 if name == "hunyuandit" else 32) + p for p in T5[word]]


def run_of(pieces, texts, start=0):
    """Where these pieces first follow one another."""
    first = next(k for k in range(start, len(texts)) if texts[k : k + len(pieces)] == pieces)
    return list(range(first, first + len(pieces)))


def plain(tokenizer, text):
    return [
        re.sub("[\u0120\u2581]", "", token)
        for token in tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)
    ]


def texts_of(name, pipe, prompt):
    """The tokens that a model reads, as the pipelines make them, without padding."""
    if name == "lumina2":
        text = f"Paint. <Prompt Start> {prompt}"
    elif name == "qwenimage":
        text = pipe.prompt_template_encode.format(prompt)
    elif name == "flux2":
        system = {"role": "system", "content": pipe.system_message}
        text = pipe.tokenizer.apply_chat_template(
            [system, {"role": "user", "content": prompt}], tokenize=False
        )
        texts = plain(pipe.tokenizer, text)
        return ["<|endoftext|>"] * (480 - len(texts)) + texts
    else:
        thinking = {"enable_thinking": name == "zimage"}
        message = {"role": "user", "content": prompt}
        text = pipe.tokenizer.apply_chat_template(
            [message], tokenize=False, add_generation_prompt=True, **thinking
        )
    texts = plain(pipe.tokenizer, text)
    return texts[pipe.prompt_template_encode_start_idx :] if name == "qwenimage" else texts


def test_words_are_located_in_every_encoder(named):
    name, pipe = named
    found = locate(pipe, PROMPTS[0], "turtle", **OPTIONS.get(name, {}))
    assert list(found.positions) == positions_of(name, pipe, PROMPTS[0], "turtle")


def test_recording_changes_nothing_and_exit_restores_everything(named):
    name, pipe = named
    denoiser = family_of(pipe).denoiser(pipe)
    processors = {n: m.processor for n, m in denoiser.named_modules() if hasattr(m, "processor")}
    plain = run(name, pipe)
    with record(pipe, ["cat"]) as maps:
        assert torch.equal(run(name, pipe), plain)
    assert maps["cat"].shape[0] == 1
    if name in UNSTEERABLE:
        with (
            pytest.raises(ModelError, match="can be recorded, not steered"),
            steer(pipe, AttendAndExcite(["cat"])),
        ):
            pass
        return
    with pytest.raises(ZeroDivisionError), steer(pipe, AttendAndExcite(["cat", "turtle"])):
        run(name, pipe)
        raise ZeroDivisionError
    assert {
        n: m.processor for n, m in denoiser.named_modules() if hasattr(m, "processor")
    } == processors
    assert not denoiser._forward_pre_hooks
    assert not {"step", "encode_prompt", "check_inputs"} & {*vars(pipe), *vars(pipe.scheduler)}
    assert torch.equal(run(name, pipe), plain)


def test_every_attention_that_runs_is_a_site_and_sums_to_one(named):
    name, pipe = named
    family = family_of(pipe)
    denoiser = family.denoiser(pipe)
    ran, seen = set(), set()

    def handler(call):
        seen.add(call.site.name)
        total = call.probabilities().sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total))
        assert call.query.shape[1] == call.site.heads
        return call.run()

    hooks = [
        module.register_forward_hook(lambda *_, n=n: ran.add(n))
        for n, module in denoiser.named_modules()
        if hasattr(module, "processor")
    ]
    with tap(denoiser, {site.name: site for site in family.sites(denoiser)}, handler):
        run(name, pipe)
    for hook in hooks:
        hook.remove()
    left_out = {
        n
        for n in ran
        if n.startswith("context_refiner") or (name == "sana" and n.endswith("attn1"))
    }
    assert seen == ran - left_out
    assert len(left_out) == {"lumina2": 1, "zimage": 1, "sana": 2}.get(name, 0)


def test_gradient_checkpointing_changes_nothing(named):
    name, pipe = named
    denoiser = family_of(pipe).denoiser(pipe)
    if name in UNSTEERABLE or not denoiser._supports_gradient_checkpointing:
        pytest.skip("recorded only, or no checkpointing in diffusers")
    if name == "chroma":
        denoiser.enable_gradient_checkpointing()
        with (
            pytest.raises(ModelError, match="drops the attention mask"),
            steer(pipe, AttendAndExcite(["cat"])),
        ):
            run(name, pipe)
        denoiser.disable_gradient_checkpointing()
        return
    guided = []
    for switch in (denoiser.disable_gradient_checkpointing, denoiser.enable_gradient_checkpointing):
        switch()
        with (
            steer(pipe, AttendAndExcite(["cat", "turtle"]), where=TEXT),
            record(pipe, ["cat"]) as maps,
        ):
            latents = run(name, pipe)
        guided.append((latents, maps["cat"]))
    denoiser.disable_gradient_checkpointing()
    for one, other in zip(*guided, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_ids_that_were_changed_on_their_way_to_a_text_encoder_are_refused(named):
    name, pipe = named

    def change(_, args, kwargs):
        ids = (args[0] if args else kwargs["input_ids"]).clone()
        ids[:, 2] = torch.where(ids[:, 2] == 5, 6, 5)
        return ((ids, *args[1:]), kwargs) if args else (args, kwargs | {"input_ids": ids})

    for component in {encoder.component for encoder in family_of(pipe).encoders(pipe)}:
        encoder = getattr(pipe, component)
        hook = encoder.register_forward_pre_hook(change, with_kwargs=True)
        with (
            pytest.raises(CallError, match=rf"{component} of \w+ did not read 'a red cat .* posit"),
            record(pipe, ["turtle"]),
        ):
            run(name, pipe)
        hook.remove()


def test_a_picture_does_not_depend_on_its_batch(named):
    name, pipe = named
    if name in UNSTEERABLE:
        pytest.skip("recorded only")
    words = {PROMPTS[0]: ["cat", "turtle"], PROMPTS[1]: ["dog"]}
    where = Where(kind=("cross", "joint"))
    descent = Descent(step_size=20.0, thresholds={0.0: 0.9}, max_refinements=2)
    packed = (2, 24, 16)
    shapes = {
        "flux": packed,
        "chroma": packed,
        "qwenimage": packed,
        "klein": (2, 4, 4, 6),
        "sana": (2, 4, 32, 48),
        "wan": (2, 4, 2, 8, 12),
        "cogvideox": (2, 3, 4, 8, 12),
        "ltx": (2, 72, 4),
    }
    dtype = torch.float32 if name == "zimage" else torch.float64
    latents = torch.randn(
        shapes.get(name, (2, 4, 8, 12)), generator=torch.Generator().manual_seed(3), dtype=dtype
    )
    with steer(pipe, AttendAndExcite(words), where=where, descent=descent):
        both = run(name, pipe, PROMPTS, latents=latents.clone())
    for image, prompt in enumerate(PROMPTS):
        with steer(pipe, AttendAndExcite(words), where=where, descent=descent):
            alone = run(name, pipe, prompt, latents=latents[image : image + 1].clone())
        torch.testing.assert_close(
            both[image], alone[0], rtol=0, atol=1e-4 if name in SINGLE else 1e-6
        )


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
