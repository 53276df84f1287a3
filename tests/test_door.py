"""What is given is checked once, before anything runs: numbers, names, types, and whether there is
anything to do. The checks of annotations that the suite adds are off here."""

import inspect
import math
from dataclasses import fields

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
)

from attncontrol import edits, losses, sprites
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Share, fits, in_words
from attncontrol.edits import SoftIdentity, SoftUniform
from attncontrol.errors import (
    AttnControlError,
    EditError,
    LossError,
    ModelError,
    NonFiniteError,
    SettingError,
    SiteError,
    WordError,
)
from attncontrol.losses import AttendAndExcite, BoxDiff, SynGen
from attncontrol.losses import _method as named
from attncontrol.maps.store import save
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.noise_search import NoiseSearch
from attncontrol.verbs.edit import edit
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.places import On, PerImage
from attncontrol.verbs.record import record
from attncontrol.verbs.steer import steer
from tests.kit.tiny import tiny_sd

pytestmark = pytest.mark.usefixtures("as_users_have_it")
PROMPT = "a red cat and a frog"
MID = Where("cross", layers=("mid_block",))
RIGHT = {
    "layout": {"cat": (0.0, 0.0, 0.5, 1.0)}, "centers": {"cat": (0.2, 0.5)}, "tau": 0.5,
    "moves": {"cat": (0.2, 0.0)}, "layers": ("mid_block.attentions.0",), "factors": {"cat": 2.0},
    "region": (0.0, 0.0, 0.5, 1.0), "edit": SoftUniform(), "heads": (), "target": 0.5,
    "objective": torch.sum, "regions": {"cat": (0.0, 0.0, 0.5, 1.0)}, "delta": 1.1,
    "subject": "cat", "by": (0.3, 0.0), "share": 0.5,
}  # fmt: skip
MORE = {"OmissionSignal": {"directions": {"mid": torch.zeros(2, 4)}, "words": ["cat"]}}
ODD = [math.nan, object(), b"x", -1.5, "x", [object()], {"x": object()}]
OWN = {
    "On": {"edit"},  # whoever runs it says what an edit is
    "KeyMask": set(),
}


def public():
    """Every class that users fill in."""
    spaces = [getattr(space, name) for space in (losses, edits) for name in space.__all__]
    return [cls for cls in spaces if inspect.isclass(cls)] + [
        Descent,
        NoiseSearch,
        Where,
        On,
        PerImage,
    ]


@pytest.mark.parametrize("cls", public(), ids=lambda cls: cls.__name__)
def test_every_field_of_every_class_is_checked_when_it_is_given(cls):
    """No field takes all of the odd values, and what is refused is refused by name."""
    names = [each.name for each in fields(cls)]
    right = {name: RIGHT[name] for name in names if name in RIGHT} | MORE.get(cls.__name__, {})
    cls(**right)
    for name in set(names) - OWN.get(cls.__name__, set()):
        refusals = [refusal(cls, right | {name: odd}) for odd in ODD]
        said = [text for text in refusals if text]
        assert len(said) >= 5, name
        assert all(len(text.splitlines()) == 1 for text in said)


def refusal(make, arguments):
    """What the error says, None if there is none."""
    try:
        make(**arguments)
    except AttnControlError as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def pipe():
    return tiny_sd()


def run(pipe, steps=3, prompt=PROMPT, **call):
    generator = torch.Generator().manual_seed(0)
    call = {"height": 64, "width": 64, "guidance_scale": 2.0, "output_type": "latent"} | call
    return pipe(prompt, num_inference_steps=steps, generator=generator, **call).images


REFUSED = {
    "keep": (lambda p: record(p, ["cat"], keep="step"), SettingError, "keep must be a list"),
    "no step": (lambda p: record(p, steps=[]), SettingError, "steps must be a list of numbers of"),
    "step": (lambda p: record(p, ["cat"], steps=[-1]), SettingError, "steps must be a list"),
    "to": (lambda p: record(p, ["cat"], to=""), SettingError, "to must be a folder, not ''"),
    "limit": (lambda p: record(p, limit=math.nan), SettingError, "limit must be a number of bytes"),
    "int8": (lambda p: record(p, encoding="x"), SettingError, "encoding must be 'float32' or"),
    "branches": (lambda p: record(p, branches=()), SettingError, "branches must be a list such as"),
    "branches twice": (
        lambda p: record(p, branches=("cond", "cond")), SettingError, "branches must be a list",
    ),
    "direction": (lambda p: record(p, direction="x"), SettingError, "direction must be 'image"),
    "nested": (lambda p: record(p, [["cat"]]), WordError, "words must be a non-empty list such as"),
    "scale": (
        lambda p: perturb(p, SoftIdentity(), scale=math.inf, where=MID), SettingError,
        "scale must be a number of at least 0 or a function of 1 argument, not inf",
    ),
    "steps": (
        lambda p: perturb(p, SoftIdentity(), scale=1.0, steps=(1, 0), where=MID), SettingError,
        "steps must be two shares of the run",
    ),
    "kind": (lambda _: Where("corss"), SettingError, "Where.kind must be 'self' or 'cross' or"),
    "layers": (lambda _: Where(layers="mid_block"), SettingError, "a tuple of paths, such as"),
    "no words": (lambda _: SynGen([]), WordError, "words must name at least one"),
    "empty": (lambda _: SynGen(()), WordError, "words must name at least one"),
    "numbers": (lambda _: SynGen([1.5]), WordError, "SynGen.words must be a list"),
    "weight": (lambda _: SynGen() * math.nan, SettingError, "the weight of a loss must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_are_refused_by_name_before_anything_runs(pipe, name):
    make, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        make(pipe)


def test_numbers_of_other_packages_are_numbers_and_bools_are_not():
    assert fits(torch.tensor(0.5).numpy()[()], Share)
    assert not fits(True, Share)
    assert not fits(10**400, Share)
    assert in_words(Share | None) == "a share between 0 and 1 or None"


def test_a_setting_that_changes_is_checked_while_it_does(pipe):
    above = SoftUniform(lambda progress: 2.0 if progress else 0.5)
    message = r"a setting at 0\.5 of the run must be a share"
    with pytest.raises(SettingError, match=message), perturb(pipe, above, scale=1.0, where=MID):
        run(pipe)


def broken(call, now):
    """Whose output is NaN from the second step on."""
    return call.run() * (math.nan if now.step.index else 1.0)


@pytest.mark.parametrize("verb", ["edit", "perturb"])
def test_what_is_not_finite_is_an_error_that_names_the_place(pipe, verb):
    context = {"edit": edit, "perturb": lambda *a, **k: perturb(*a, scale=1.0, **k)}[verb]
    message = r"step 1 .*attention at mid_block\.attentions\.0\S* is the first that is, its queries"
    with pytest.raises(NonFiniteError, match=message), context(pipe, broken, where=MID):
        run(pipe)


def test_a_pipeline_that_is_broken_itself_is_an_error_in_record(pipe):
    latents = torch.full((1, 4, 8, 8), math.inf, dtype=torch.float64)
    with pytest.raises(NonFiniteError, match=r"step 0 .* so are its inputs"), record(pipe, ["cat"]):
        run(pipe, latents=latents)


@pytest.mark.parametrize("prompt", ["a cat and a frog"])
def test_a_loss_that_has_nothing_to_do_says_so_and_costs_nothing(pipe, prompt):
    plain = run(pipe, prompt=prompt)
    with (
        pytest.warns(UserWarning, match=f"SynGen has nothing to do for the prompt '{prompt}'"),
        steer(pipe, SynGen(), where=MID) as trace,
    ):
        idle = run(pipe, prompt=prompt)
    assert torch.equal(idle, plain)
    assert trace.steps == []
    loss = AttendAndExcite(descent=Descent(step_size=5.0, thresholds={}))
    with steer(pipe, loss, where=MID):
        alone = run(pipe, prompt=prompt)
    with (
        pytest.warns(UserWarning, match="SynGen has nothing") as said,
        steer(pipe, loss + SynGen(), where=MID),
    ):
        both = run(pipe, prompt=prompt)
    assert torch.equal(both, alone)
    assert len(said) == 1


def test_steer_works_in_inference_mode(pipe):
    descent = Descent(step_size=5.0, thresholds={})
    with steer(pipe, AttendAndExcite(["cat"]), where=MID, descent=descent):
        expected = run(pipe)
    with torch.inference_mode(), steer(pipe, AttendAndExcite(["cat"]), where=MID, descent=descent):
        pictures = run(pipe)
    assert torch.equal(pictures, expected)
    assert not torch.equal(pictures, run(pipe))


def test_a_model_of_inference_mode_cannot_be_steered():
    with torch.inference_mode():
        pipe = tiny_sd()
    with pytest.raises(ModelError, match="the model was loaded under torch"):
        steer(pipe, AttendAndExcite(["cat"]), where=MID).__enter__()


SCHEDULERS = [EulerDiscreteScheduler, HeunDiscreteScheduler, KDPM2DiscreteScheduler, DDIMScheduler]


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_sigmas_are_those_of_the_input_scaling(scheduler):
    """x = z / sqrt(sigma^2 + 1) where the scheduler scales its input, else that of alphas."""
    pipe = tiny_sd()
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    scales, own = [], pipe.scheduler.scale_model_input

    def watched(sample, timestep):
        scaled = own(sample, timestep)
        if sample.ndim == 4:
            kept = pipe.scheduler.alphas_cumprod[int(timestep)] if scheduler is DDIMScheduler else 0
            c = (
                float(kept) ** 0.5
                if scheduler is DDIMScheduler
                else float((scaled / sample)[0, 0, 0, 0])
            )
            scales.append(math.sqrt(1 / c**2 - 1))
        return scaled

    pipe.scheduler.scale_model_input = watched
    with record(pipe, ["cat"], where=MID, keep=("step",)) as maps:
        run(pipe)
    assert maps.sigmas == pytest.approx(scales, rel=1e-4)


def test_a_picture_of_a_single_cell_cannot_be_steered(pipe):
    with (
        pytest.raises(
            SettingError, match="maps of 1 x 1 cells cannot be smoothed: make a larger picture"
        ),
        steer(pipe, AttendAndExcite(["cat"]), where=MID),
    ):
        run(pipe, height=32, width=32)


def test_a_class_is_no_pipeline(pipe):
    with pytest.raises(ModelError, match="StableDiffusionPipeline is a class: give a pipeline"):
        record(type(pipe)).__enter__()


@pytest.mark.parametrize("where", [Where("self"), Where(layers=("mid_block",))])
def test_where_attention_does_not_look_at_text_nothing_is_steered(pipe, where):
    with pytest.raises(SiteError, match="is self-attention, which has no image->text"):
        steer(pipe, AttendAndExcite(["cat"]), where=where).__enter__()


@pytest.mark.parametrize("name", [[], None, 3, str])
@pytest.mark.parametrize(
    "find", [edits.Share.preset, sprites.path, sprites.call, named.method, named.needs]
)
def test_what_is_no_name_is_refused_by_what_finds_names(find, name):
    with pytest.raises(SettingError, match="name must be a string"):
        find(name)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 255.0])
@pytest.mark.parametrize(
    "take",
    [
        edits.KeyMask,
        lambda mask: edits.Share(outside=mask),
        lambda mask: edits.GRAG(1.1, region=mask),
        lambda mask: edits.DenseDiffusion({"cat": mask}),
        lambda mask: edits.BoundedAttention({"cat": mask}),
        lambda mask: BoxDiff({"cat": mask}),
    ],
)
def test_masks_hold_shares(take, value):
    take(torch.tensor([[0.25, 1.0]]))
    with pytest.raises(SettingError, match=r"the mask of .* must hold True and False, or numbers"):
        take(torch.tensor([[1.0, value]]))


@pytest.mark.parametrize("maps", [None, "run", AttendAndExcite])
def test_only_maps_are_saved(maps, tmp_path):
    with pytest.raises(SettingError, match="maps must be AttentionMaps"):
        save(maps, tmp_path / "run.safetensors")


NOTHING = {
    "heads": (lambda p: edit(p, SoftUniform(), heads=[]), SiteError, "heads=.. names none"),
    "kinds": (lambda _: Where(kind=()), SettingError, "kind=.. selects nothing"),
    "edit": (lambda p: edit(p, lambda call: call, where=MID), EditError, "function .call, now."),
    "weaken": (
        lambda p: perturb(p, lambda: 0, scale=1.0, where=MID), EditError, "function .call, now.",
    ),
    "loss": (lambda p: steer(p, lambda maps, _: maps), LossError, "of the maps of a step alone"),
    "scale": (
        lambda p: perturb(p, SoftUniform(), scale=lambda: 1.0, where=MID), SettingError,
        "a function of 1 argument",
    ),
    "setting": (lambda _: SoftUniform(lambda: 0.5), SettingError, "a function of 1 argument"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTHING)
def test_what_can_do_nothing_is_refused_at_the_door(pipe, name):
    make, error, message = NOTHING[name]
    with pytest.raises(error, match=message) as said:
        make(pipe).__enter__()
    assert len(str(said.value).splitlines()) == 1
