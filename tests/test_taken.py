"""What a record says of sources: which cells and which attention an edited picture has of its
source."""

import pytest
import torch

from attncontrol import edit, load, record, save
from attncontrol.edits import LocalBlend, Replace
from attncontrol.errors import RecordError
from attncontrol.maps.images import images_of, joined
from attncontrol.maps.taken import TakenOver
from tests.kit.records import DOWN, made
from tests.kit.runs import run
from tests.kit.zoo import flux, sd

PROMPTS = ["a red cat and a turtle", "a blue cat and a turtle", "a red cat and a frog"]
WORDS = ["cat", "red", "blue", "frog"]
STEPS = 4


def recorded(pipe, name, prompts, *edits, outside=False, **options):
    """The record, and the latents after every step."""
    seen = []
    contexts = [edit(pipe, one) for one in edits]
    contexts.insert(0 if outside else len(contexts), record(pipe, WORDS, **options))
    with contexts[0] as first, contexts[1] as second, contexts[2] as third:
        run(name, pipe, prompts, steps=STEPS, seed=[0] * len(prompts),
            callback_on_step_end=lambda *given: seen.append(given[3]["latents"]) or {})  # fmt: skip
    return next(of for of in (first, second, third) if of is not None), seen


@pytest.mark.parametrize(("make", "outside"), [(sd, True), (sd, False), (flux, True)])
def test_cells_are_those_whose_latents_are_the_sources(make, outside):
    source = (0, 0, 0)
    blend = LocalBlend(source=source, start=0.5, threshold=0.9, held=1.0)
    edits = blend, Replace(source=source)
    maps, latents = recorded(make(), make.__name__, PROMPTS, *edits, outside=outside)
    taken = maps.taken
    assert taken.sources == source
    assert taken.pairs == ((0, 1), (0, 2))
    assert taken.cells.shape[:2] == (3, STEPS)
    for step, after in enumerate(latents):
        same = (after == after[:1]).all(1 if after.ndim == 4 else 2)
        same = same.reshape(taken.cells[:, step].shape)
        assert torch.equal(taken.cells[1:, step], same[1:].to(torch.uint8)), step
    assert taken.cells[0].sum() == taken.cells[:, :2].sum() == 0
    assert 0 < taken.cells[1:, -1].float().mean() < 1


def test_words_are_the_shares_that_the_edit_takes():
    """a_j: kept and swapped words in the first three of four steps, a new one never; "red" is not
    in the second prompt, nor "frog" in the first two."""
    what = Replace(cross=0.75, words={"cat": 0.25})
    maps, _ = recorded(sd(), "sd", PROMPTS, LocalBlend(), what)
    kept = {"cat": [1, 0, 0, 0], "red": [1, 1, 1, 0], "blue": [1, 1, 1, 0], "frog": [1, 1, 1, 0]}
    nothing = [0, 0, 0, 0]
    assert set(maps.taken.words) == set(maps.layers)
    for shares in maps.taken.words.values():
        said = [[each.T.tolist()[k] for k in range(4)] for each in shares]
        assert said[0] == [nothing] * 4
        assert said[1] == [kept["cat"], nothing, kept["blue"], nothing]
        assert said[2] == [kept["cat"], kept["red"], nothing, kept["frog"]]


def test_records_keep_it_in_files_and_folders(tmp_path):
    edits = LocalBlend(), Replace(cross=0.5)
    maps, _ = recorded(sd(), "sd", PROMPTS, *edits, keep=("step",))
    streamed, _ = recorded(sd(), "sd", PROMPTS, *edits, to=tmp_path / "run")
    again = load(save(maps, tmp_path / "run.safetensors", encoding="sqrt8"))
    for other in (streamed, again, load(tmp_path / "run")):
        assert other.taken.sources == (0, 0, 0)
        assert torch.equal(other.taken.cells, maps.taken.cells)
        assert other.taken.words.keys() == maps.taken.words.keys()
        for name, shares in other.taken.words.items():
            assert torch.equal(shares, maps.taken.words[name])


def test_without_a_source_nothing_is_said(tmp_path):
    pipe = sd()
    with record(pipe, ["cat"]) as maps:
        run("sd", pipe, PROMPTS[:2])
    assert maps.taken is None
    assert load(save(maps, tmp_path / "plain.safetensors")).taken is None


def pair(seed=0, **about):
    maps = torch.rand(2, 1, 3, 2, 4, 6, 2, generator=torch.Generator().manual_seed(seed))
    cells = torch.zeros(2, 3, 8, 12, dtype=torch.uint8)
    cells[1, 1:, :4] = 1
    words = {DOWN: torch.full((2, 3, 2), 0.5)}
    taken = TakenOver((0, 0), cells, words)
    return made({DOWN: maps}, ["cat", "frog"], **about).replace(taken=taken)


@pytest.mark.parametrize(
    ("taken", "message"),
    [
        (TakenOver((0,)), r"sources \[0\] of 2 images"),
        (TakenOver((0, 2)), r"sources \[0, 2\] of 2 images"),
        (TakenOver((1, 0)), "the source 1, which has one itself"),
        (TakenOver((0, 0), torch.zeros(2, 2, 8, 8, dtype=torch.uint8)), r"taken is .*\(2, 2, 8"),
        (TakenOver((0, 0), torch.zeros(2, 3, 8, 8)), "taken is .*F32"),
        (TakenOver((0, 0), None, {DOWN: torch.zeros(2, 3, 9)}), f"taken/{DOWN} is"),
        (TakenOver((0, 0), None, {"mid": torch.zeros(2, 3, 2)}), "does not know the tensor taken"),
    ],
)
def test_what_does_not_fit_is_refused(taken, message, tmp_path):
    with pytest.raises(RecordError, match=message):
        save(pair().replace(taken=taken), tmp_path / "x.safetensors")


def test_images_are_taken_out_of_records_and_put_together():
    first, second = pair(0, seeds=[5, 5]), pair(1, seeds=[6, 6])
    both = joined([first, second])
    assert both.taken.sources == (0, 0, 2, 2)
    assert both.about["seeds"] == [5, 5, 6, 6]
    assert torch.equal(both.layers[DOWN], torch.cat([first.layers[DOWN], second.layers[DOWN]]))
    last = images_of(both, [3, 1])
    assert last.about["seeds"] == [6, 5]
    assert torch.equal(last.layers[DOWN][0], second.layers[DOWN][1])
    assert torch.equal(last.taken.cells, first.taken.cells[[1, 1]])
    with pytest.raises(RecordError, match="records of other labels cannot be shown together"):
        joined([first, made({DOWN: second.layers[DOWN]}, ["cat", "red"])])
