import functools
import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from PIL import Image
from typer.testing import CliRunner

from attncontrol import Descent, Relative, sprites, steer
from attncontrol.batch.appearance import Appearance, appearance, outside
from attncontrol.batch.options import load_pipeline
from attncontrol.batch.setting_check import check_setting, compare, draw, still
from attncontrol.batch.verdicts import LEAST, MOST, SeedCheck, remedy, together
from attncontrol.bench import fits
from attncontrol.cli import app
from attncontrol.losses import AttendAndExcite, Auto, InitNO, SynGen
from attncontrol.losses.initno import JointLoss
from attncontrol.objectives.noise_search import NoiseSearch

PROMPT = "a red cat and a blue frog"
WORDS = ["cat", "frog"]


def noise(count=2):
    return torch.randn(
        count, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


def sampled(pipe):
    """What the scheduler is given, step by step: the latents with their change."""
    seen, step = [], pipe.scheduler.step

    @functools.wraps(step)
    def kept(*args, **options):
        seen.append(args[2].clone())
        return step(*args, **options)

    pipe.scheduler.step = kept
    return seen


def call(pipe, count=2, **options):
    return pipe(
        [PROMPT] * count, latents=noise(count), height=64, width=64, output_type="latent",
        num_inference_steps=4, **options,
    ).images  # fmt: skip


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler])
@pytest.mark.parametrize("thresholds", [{}, {0.0: 0.05}])
def test_the_trace_tells_how_far_every_image_moved(pipe, scheduler, thresholds):
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    seen = sampled(pipe)
    descent = Descent(step_size=40.0, thresholds=thresholds, max_refinements=3)
    with steer(pipe, AttendAndExcite(WORDS), descent=descent) as trace:
        call(pipe)
    sigma = float(pipe.scheduler.init_noise_sigma)
    change = seen[0] - noise() * sigma
    scale = 1.0 if scheduler is DDIMScheduler else (float(pipe.scheduler.sigmas[0]) ** 2 + 1) ** 0.5
    expected = (change / scale).flatten(1).square().mean(1).sqrt()
    assert trace.steps[0].moves == pytest.approx(expected.tolist(), rel=1e-6)
    assert min(trace.steps[0].moves) > 1e-4
    assert max(trace.steps[0].refinements) == (3 if thresholds else 0)


def test_a_relative_step_moves_by_its_share_and_others_not_at_all(pipe):
    descent = Descent(step_size=Relative(0.06), thresholds={}, guided=1.0, final=0.25)
    with steer(pipe, AttendAndExcite(WORDS), descent=descent, images=(1,)) as trace:
        call(pipe)
    factors = [(1 - 0.75 * i / 3) ** 0.5 for i in range(4)]
    assert [step.moves[1] for step in trace.steps] == pytest.approx([0.06 * f for f in factors])
    assert {step.moves[0] for step in trace.steps} == {0.0}
    assert len(repr(trace)) < 100


@pytest.mark.parametrize("name", sprites.MODELS)
def test_a_plain_run_with_losses_is_the_plain_run(name):
    pipe = load_pipeline(name)
    pipe.set_progress_bar_config(disable=True)
    arguments = sprites.call(name) | {"num_inference_steps": 3}
    descent = Descent(guided=1.0, thresholds={0.0: 0.9})
    drawn = draw(pipe, *still(Auto(), descent), PROMPT, [5, 6], **arguments)
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    plain = pipe([PROMPT] * 2, generator=generators, **arguments).images
    for one, image in zip(drawn, plain, strict=True):
        assert np.array_equal(one.image, image)
        assert [len(step.losses) for step in one.steps] == [2, 2, 2]
        assert {move for step in one.steps for move in step.moves} == {0.0}
        assert {count for step in one.steps for count in step.refinements} == {0}


def test_a_search_is_no_part_of_the_plain_run_and_no_move(pipe):
    class Short(InitNO):
        @property
        def search(self):
            return NoiseSearch(JointLoss(self.words), target=0.0, rounds=1, steps=2, last=1)

    objective, descent = Short(WORDS), Descent(thresholds={}, guided=1.0)
    arguments = {"height": 64, "width": 64, "num_inference_steps": 3}
    plain = draw(pipe, *still(objective, descent), PROMPT, [0, 1], **arguments)
    assert {move for step in plain[0].steps for move in step.moves} == {0.0}
    other = draw(pipe, *still(AttendAndExcite(WORDS), descent), PROMPT, [0, 1], **arguments)
    assert np.array_equal(plain[1].image, other[1].image)
    guided = draw(pipe, objective, descent, PROMPT, [0, 1], **arguments)
    assert min(guided[0].steps[0].moves) > max(guided[0].steps[1].moves)
    found = compare(plain, guided, searched=True)
    assert [len(seed.moves) for seed in found.seeds] == [2, 2]
    assert [len(seed.losses) for seed in found.seeds] == [3, 3]


ROWS, COLUMNS = np.indices((8, 8))
RED = np.full((8, 8, 3), [255, 0, 0])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (255 * ((ROWS + COLUMNS) % 2), (1.0, 1.0, 0.5, 0.0)),  # a board: the highest frequency
        (255 * (COLUMNS >= 4), (1 / 14, (2 - 2**0.5) / 4, 0.5, 0.0)),  # one edge in seven
        (127 + 0 * ROWS, (0.0, 0.0, 0.0, 0.0)),
        (RED, (0.0, 0.0, 0.0, 1.0)),
        (255 * (COLUMNS % 4 >= 2), (3 / 14, 0.0, 0.5, 0.0)),  # 1/4 cycle per pixel is not above
    ],
    ids=["board", "edge", "grey", "red", "stripes"],
)
def test_appearance_by_hand(values, expected):
    found = appearance(Image.fromarray(np.asarray(values, np.uint8)))
    assert tuple(vars(found).values()) == pytest.approx(expected, abs=1e-4)


def test_outside_names_what_leaves_the_plain_range():
    plain = [Appearance(0.1, 0.02, 0.2, 0.3), Appearance(0.2, 0.04, 0.1, 0.3)]
    assert outside(Appearance(0.4, 0.01, 0.05, 0.6), plain, 2.0) == ()
    assert outside(Appearance(0.41, 0.009, 0.1, 0.61), plain, 2.0) == (
        "variation", "high", "saturation",
    )  # fmt: skip


LOOK = Appearance(0.1, 0.02, 0.2, 0.3)


def seed(moves, losses=(1.0, 0.5), plain=(1.0, 0.9), left=(), refinements=(0, 0)):
    return SeedCheck(0, moves, refinements, losses, plain, LOOK, LOOK, left)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (seed((0.06, 0.04)), "fits"),
        (seed((LEAST, 0.0)), "fits"),
        (seed((LEAST - 1e-6, 0.0)), "too little"),
        (seed((MOST, 0.0)), "fits"),
        (seed((0.01, MOST + 1e-6)), "too much"),
        (seed((0.06, 0.06), losses=(1.0, 0.9)), "does nothing"),
        (seed((0.006, 0.006), losses=(0.5, 0.95)), "does nothing"),  # the first step is the same
        (seed((0.06,), (1.0,), (1.0,)), "fits"),  # one step, whose loss is that before it
        (seed((0.0, 0.0)), "does nothing"),
        (seed((), (), ()), "does nothing"),
        (seed((0.06, 0.0), left=("contrast",)), "too much"),
        (seed((0.006, 0.0), left=("contrast",)), "too little"),
    ],
)
def test_verdicts(found, verdict):
    assert found.verdict == verdict


def test_seeds_together_are_judged_by_their_means():
    far, near, fitting = seed((2 * MOST, 0.0)), seed((0.006, 0.0)), seed((0.015, 0.0))
    assert together([far, near, near]) == "fits"  # 12.4 % in the mean
    assert together([far, far, near]) == "too much"
    assert together([fitting, near, near]) == "too little"
    worse = seed((0.06, 0.0), losses=(1.0, 1.2))
    assert together([worse, fitting]) == "fits"  # up by 0.3, down by 0.4
    assert together([worse, worse, fitting]) == "does nothing"
    outside = seed((0.06, 0.0), left=("high",))
    assert together([outside, fitting]) == "fits"
    assert together([outside, outside, fitting]) == "too much"


@pytest.mark.parametrize(
    ("found", "size", "text"),
    [
        (seed((0.03, 0.0)), Relative(0.03), ""),
        (seed((0.006, 0.0)), Relative(0.006), "--step-size 3%"),
        (seed((0.003, 0.0)), 0.2, "--step-size 3%"),
        (seed((0.0, 0.0)), 0.0, "--step-size 3%"),
        (seed((0.003, 0.0), refinements=(2, 0)), 0.2, "--step-size 2"),
        (seed((0.6, 0.0)), Relative(0.6), "--step-size 3%"),
        (seed((0.6, 0.0)), 20.0, "--step-size 3%"),
        (seed((0.9, 0.0), refinements=(9, 0)), 20.0,
         "--step-size 0.67, or in Python fewer refinements, Descent(max_refinements=...)"),
        (seed((0.6, 0.0), refinements=(9, 0)), Relative(0.06),
         "--step-size 0.3%, or in Python fewer refinements, Descent(max_refinements=...)"),
        (seed((0.03, 0.03), left=("high",)), Relative(0.03),
         "--step-size 1.5%, or in Python fewer steps of guidance, Descent(guided=...)"),
        (seed((0.028, 0.0), left=("high",)), 2.0,
         "--step-size 1, or in Python fewer steps of guidance, Descent(guided=...)"),
        (seed((0.1, 0.0), left=("high",)), 2.0, "--step-size 3%"),
        (seed((0.06, 0.06), losses=(1.0, 1.0)), 2.0,
         "the losses do not follow: another --method, or in Python other layers, where=..."),
        (seed((0.0, 0.0)), 2.0,
         "the loss has no gradient in this prompt: another --method, or --words"),
        (seed((), (), ()), 2.0,
         "the method has nothing to do in this prompt: another --method, or --words"),
    ],
)  # fmt: skip
def test_remedies(found, size, text):
    assert remedy([found] * 3, size) == text


def test_a_long_run_is_judged_as_a_short_one(pipe):
    """Its moves are smaller, and there are more of them."""
    descent = Descent(step_size=Relative(0.06), thresholds={}, guided=0.1, final=1.0)
    arguments = {"num_inference_steps": 50, "height": 64, "width": 64}
    with steer(pipe, AttendAndExcite(WORDS), descent=descent) as trace:
        pipe(PROMPT, output_type="latent", **arguments)
    assert [step.moves[0] for step in trace.steps] == pytest.approx([0.03] * 5)
    assert {step.total for step in trace.steps} == {50}
    found = check_setting(
        pipe, AttendAndExcite(WORDS), PROMPT, [1, 2], descent=descent, **arguments
    )
    assert [seed.peak for seed in found.seeds] == pytest.approx([0.06] * 2)


def test_a_tenth_and_ten_times_the_usual_step_are_found():
    pipe = load_pipeline("sprites-sd3")
    pipe.set_progress_bar_config(disable=True)
    arguments = sprites.call("sprites-sd3") | {"num_inference_steps": 8}
    verdicts = {}
    for share in (0.0, 0.006, 0.06, 0.6):
        descent = Descent(step_size=Relative(share), thresholds={}, final=1.0)
        found = check_setting(pipe, SynGen(), PROMPT, [1, 2], descent=descent, **arguments)
        verdicts[share] = found.verdict
        assert [seed.peak for seed in found.seeds] == pytest.approx([share, share])
        assert found.step_size == Relative(share)
    assert verdicts.pop(0.006) in fits.EXPECTED[0.1]  # falls are near 0
    assert verdicts == {0.0: "does nothing", 0.06: "fits", 0.6: "too much"}


runner = CliRunner()


def test_the_command_tells_all_numbers(model):
    options = ["--model", model, "--method", "syngen", "--seeds", "0,2", "--steps", "4"]
    options += ["--height", "64", "--width", "64", "--step-size", "60%"]
    done = runner.invoke(app, ["check", PROMPT, *options, "--json"])
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"] == "too much"
    assert told["remedy"] == "--step-size 3%"
    assert told["limits"] == {"least": LEAST, "most": MOST, "factor": 2.0}
    assert [row["seed"] for row in told["seeds"]] == [0, 2]
    for row in told["seeds"]:
        assert row["moves"] == pytest.approx([0.6, 0.6])
        assert row["peak"] == pytest.approx(0.6)
        assert len(row["losses"]) == len(row["plain_losses"]) == 2
        assert row["losses"][0] == row["plain_losses"][0]
        assert set(row["appearance"]) == {"variation", "high", "contrast", "saturation"}
    shown = runner.invoke(app, ["check", PROMPT, *options])
    assert shown.exit_code == 0
    assert "Step size 60 %: too much" in shown.stderr
    assert "Try: --step-size 3%" in shown.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "plain"], "plain has no setting"),
        (["--step-size", "nan"], "a step size is a finite number"),
        (["--words", "dog"], "'dog' is not in the prompt"),
        (["--method", "boxdiff"], "say where a word shall be"),
        (["--seeds", "2-1"], "write seeds as 0-3,8"),
    ],
)
def test_what_cannot_be_checked_is_refused(options, message):
    done = runner.invoke(app, ["check", PROMPT, *options])
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_cases_are_spread_and_steps_are_tenfold():
    cases = fits.cases(48)
    models = [case.model for case in cases]
    assert {models.count(model) for model in sprites.MODELS} == {12}
    assert len({(case.model, case.method, case.suite) for case in cases}) == 16
    assert len({case.prompt for case in cases}) == 48
    assert len({seed for case in cases for seed in case.seeds}) == 144
    usual = AttendAndExcite().descent
    assert fits.step(usual, "sprites", 10.0).step_size == 6.0
    assert fits.step(usual, "sprites", 10.0).thresholds == usual.thresholds
    assert fits.step(usual, "sprites-flux", 0.1).step_size.share == pytest.approx(0.003)
    small = fits.step(usual, "sprites-flux", 0.1)
    assert small.limit(small.step_size) == 0


def test_a_run_of_cases_goes_on_and_makes_a_table(monkeypatch, tmp_path):
    def rows(_, case):
        made.append(case.number)
        for factor, verdict in zip(fits.FACTORS, ["too little", "fits", "fits"], strict=True):
            seen = {"present": 0.5, "bound": 0.25}
            told = {"number": case.number, "model": case.model, "method": case.method}
            yield told | {"factor": factor, "verdict": verdict, "plain": seen, "guided": seen}

    made = []
    monkeypatch.setattr(fits, "rows", rows)
    monkeypatch.setattr(fits, "load_pipeline", lambda _: load_pipeline("sprites"))
    fits.run(2, tmp_path)
    found = fits.run(3, tmp_path)
    assert made == [0, 1, 2]
    lines = fits.table(found).splitlines()
    assert lines[2].startswith("| all (3) | x 0.1 | 100 % (44 to 100) | 0 | 3 | 0 | 0 | 50 -> 50 %")
    assert lines[4].startswith("| all (3) | x 10 | 0 % (0 to 56) | 0 | 0 | 3 | 0 | 50 -> 50 %")
