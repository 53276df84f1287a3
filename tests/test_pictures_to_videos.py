"""What pipelines that make a video from a picture do otherwise than those that have a text alone;
maps and edits of each are in ``test_newer_families``."""

import diffusers
import pytest
from diffusers import UniPCMultistepScheduler

from attncontrol import edit, locate, record
from attncontrol.attention.edit import Edit
from attncontrol.attention.sites import Where
from attncontrol.errors import CallError, CouplingError, ModelError
from tests.kit import census
from tests.kit.known import PROMPTS, Tiny, seen_by_hooks

OF_TOKENS = ["wan22-picture", "ltx-picture", "ltx-pictures", "ltx2-picture", "ltx2-pictures"]
OF_TOKENS += ["anyflow-picture"]


@pytest.fixture
def tiny(request, monkeypatch):
    tiny = Tiny(request.param)
    for name, value in tiny.known.patches:
        monkeypatch.setattr(name, value, raising=False)
    return tiny


@pytest.mark.parametrize("tiny", OF_TOKENS, indirect=True)
def test_the_time_of_a_step_is_that_of_the_frames_that_are_made(tiny):
    """Those that are given have one of 0."""
    seen = []

    def look(_, call, __):
        of_tokens = call.arguments["timestep"]
        assert of_tokens.min() < of_tokens.max()
        seen.append(call.step.timestep)

    seen_by_hooks(tiny, tiny.prompts, look)
    times = [float(time) for time in tiny.pipe.scheduler.timesteps]
    assert seen == [time for time in times for _ in range(tiny.known.calls)]


@pytest.mark.parametrize("tiny", ["wan21-picture"], indirect=True)
def test_a_text_that_wan_would_cut_is_refused(tiny):
    """Its processors take the last 512 positions for the text, whatever length that has."""
    refused = pytest.raises(CallError, match=r"16 positions.*max_sequence_length=512")
    with refused, record(tiny.pipe, ["cat"]):
        tiny.run(PROMPTS[0], max_sequence_length=16)


@pytest.mark.parametrize("tiny", ["cosmos-world"], indirect=True)
def test_an_estimate_of_the_scheduler_is_no_step(tiny):
    """Cosmos steps both branches, takes the prediction of that, and steps the pictures."""
    seen = []

    class Steps(Edit):
        def __call__(self, call, _):
            return call

        def stepped(self, latents, now):
            seen.append((now.progress, tuple(latents.shape)))
            return latents * 0.5 if now.progress == 0.0 else latents

    plain = tiny.run()
    with edit(tiny.pipe, Steps(), where=Where()):
        halved = tiny.run()
    assert seen == [(0.0, (2, 4, 2, 8, 12)), (1.0, (2, 4, 2, 8, 12))]
    assert (halved - plain).abs().max() > 0.1


def layouts_of(tiny):
    """With pictures of the first and a later frame, and of the first alone."""
    layouts = []

    def look(call, now):
        layouts.append(now.layout)
        return call

    with edit(tiny.pipe, look, where=Where(kind="cross")):
        tiny.run(num_inference_steps=1)
        tiny.run(num_inference_steps=1, conditions=tiny.known.options["conditions"][:1])
    return layouts[0], layouts[-1]


@pytest.mark.parametrize("tiny", ["ltx-pictures"], indirect=True)
def test_pictures_of_later_frames_lie_before_the_video(tiny):
    with_two, with_first = layouts_of(tiny)
    assert (with_two.grid, with_two.image) == ((3, 4, 6), slice(24, None))
    (given,) = with_two.references
    assert (given.grid, given.image) == ((1, 4, 6), slice(24))
    assert (with_first.grid, with_first.image) == ((3, 4, 6), slice(0, None))
    assert not with_first.references


@pytest.mark.parametrize("tiny", ["ltx2-pictures"], indirect=True)
def test_pictures_of_later_frames_lie_behind_the_video_of_ltx2(tiny):
    with_two, with_first = layouts_of(tiny)
    assert (with_two.grid, with_two.image) == ((2, 4, 6), slice(48))
    assert [(given.grid, given.image) for given in with_two.references] == [
        ((1, 4, 6), slice(48, None))
    ]
    assert (with_first.grid, with_first.image) == ((2, 4, 6), slice(48))
    assert not with_first.references


@pytest.mark.parametrize("tiny", ["wan-vace"], indirect=True)
def test_reference_pictures_of_vace_are_frames_before_the_video(tiny):
    layouts = []

    def look(call, now):
        assert call.query.shape[2] == now.layout.image.start + 48
        layouts.append(now.layout)
        return call

    with edit(tiny.pipe, look, where=Where(kind="cross", layers=("vace_blocks",))):
        for count in (2, 0):
            pictures = tiny.known.options["reference_images"][0] * count
            tiny.run(num_inference_steps=1, reference_images=[pictures] if count else None)
    for layout, count in ((layouts[0], 2), (layouts[-1], 0)):
        assert layout.grid == (2, 4, 6)
        cells = [slice(0, 24), slice(24, 48)][:count]
        assert [(given.grid, given.image) for given in layout.references] == [
            ((4, 6), place) for place in cells
        ]


def test_windows_of_a_video_are_refused():
    pipe = census.stub(diffusers.LTXI2VLongMultiPromptPipeline)
    with pytest.raises(ModelError, match="window by window"), record(pipe, ["cat"]):
        pass


@pytest.mark.parametrize("tiny", ["hunyuanvideo-frame", "hunyuanvideo-channels"], indirect=True)
def test_text_beside_a_picture_has_the_positions_of_its_mask(tiny):
    """Also that of the negative prompt, which keeps more of the picture, and of a prompt that is
    cut before what follows it."""
    seen = []

    def look(_, call, __):
        tokens = call.text.of(call.branches[0]).tokens(0)
        assert len(tokens) == call.arguments["encoder_attention_mask"].sum()
        pictures = [token.text for token in tokens].count("<image>")
        seen.append((call.branches[0], pictures, tokens[-1].text == "\u010a"))

    for prompt in (PROMPTS[0], "a cat " * 60):
        seen_by_hooks(tiny, prompt, look, num_inference_steps=1)
    kept = 1 if tiny.name == "hunyuanvideo-frame" else 2
    assert seen == [("cond", kept, True), ("uncond", 2, True), ("cond", kept, False), seen[1]]


@pytest.mark.parametrize("tiny", ["hunyuanvideo-frame"], indirect=True)
def test_templates_whose_picture_is_elsewhere_are_refused(tiny):
    template = tiny.known.options["prompt_template"] | {"image_emb_start": 2}
    with pytest.raises(ModelError, match=r"pictures at positions \[3\]"):
        locate(tiny.pipe, PROMPTS[0], "cat", prompt_template=template)


@pytest.mark.parametrize("tiny", ["chronoedit"], indirect=True)
def test_steps_of_other_frames_are_recorded_apart(tiny):
    """ChronoEdit goes on with the first and the last of its frames."""
    tiny.pipe.scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True
    )
    options = {"num_frames": 13, "num_inference_steps": 3, "enable_temporal_reasoning": True}
    options["num_temporal_reasoning_steps"] = 1
    refused = pytest.raises(CouplingError, match=r"grid \(4, 4, 6\).*have \(2, 4, 6\) now")
    with refused, record(tiny.pipe, ["cat"]):
        tiny.run(PROMPTS[0], **options)
    with record(tiny.pipe, ["cat"], steps=(1, 2)) as maps:
        tiny.run(PROMPTS[0], **options)
    assert maps["cat"].shape == (1, 2, 4, 6)
