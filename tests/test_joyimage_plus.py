"""JoyImage-Edit-Plus where every prompt of a batch has pictures of its own."""

import pytest
import torch

from attncontrol import edit, locate, record, steer
from attncontrol.edits import KeyMask, Within
from attncontrol.errors import EditError, ModelError
from attncontrol.running.session import Hooks, attach
from tests.kit.zoo_given import GIVEN
from tests.kit.zoo_newer import JOY, photo
from tests.reference.loops import Softmax

PROMPTS = ["a dog beside a cat", "a turtle"]
IMAGES = [[photo(96, 64, 0)], [photo(32, 64, 1), photo(96, 64, 2)]]
CELLS, PATCHES = 24, 24 + 8 + 24  # those of the second picture; the first is filled up


@pytest.fixture
def pipe(monkeypatch):
    monkeypatch.setattr(JOY, lambda height, width, _: (64, 96 if width > height else 32))
    return GIVEN["joyimage-plus"].make()


def run(pipe, **options):
    call = {"images": IMAGES, "prompt": PROMPTS, "height": 64, "width": 96, "guidance_scale": 2.0,
            "num_inference_steps": 2, "output_type": "latent",
            "generator": torch.Generator().manual_seed(0)}  # fmt: skip
    return pipe(**call | options).images


def test_words_stand_behind_the_pictures_of_their_prompt(pipe, monkeypatch):
    softmax = Softmax(monkeypatch)
    plain = run(pipe)
    seen = [p for p in softmax.seen if len(p) == 4][:2]  # of the first step
    monkeypatch.undo()
    monkeypatch.setattr(JOY, lambda height, width, _: (64, 96 if width > height else 32))
    words = {PROMPTS[0]: ["cat"], PROMPTS[1]: ["turtle"]}
    with record(pipe, words, keep=("head", "step")) as maps:
        assert torch.equal(run(pipe), plain)
    read = pipe.tokenizer.convert_ids_to_tokens
    for image, (pieces, pictures) in enumerate(((["\u0120cat"], 1), (["\u0120tur", "tle"], 2))):
        tokens = maps.tokens[image]
        texts = read([token.id for token in tokens])
        assert texts.count("<|vision_start|>") == pictures
        places = [k for k in range(len(texts)) if texts[k : k + len(pieces)] == pieces]
        assert list(maps.spans[image][0].positions) == [places[0] + k for k in range(len(pieces))]
        for number, site in enumerate(maps.layers):
            rows = seen[number][2 + image]  # conditional
            columns = [PATCHES + place for place in maps.spans[image][0].positions]
            expected = rows[:, :CELLS][..., columns].sum(-1).unflatten(-1, (4, 6)).float()
            found = maps.layers[site][image, 0, 0, ..., 0]
            assert torch.allclose(found, expected, rtol=0, atol=1e-6)
    alone = locate(pipe, PROMPTS[1], "turtle", images=IMAGES[1])
    assert alone.positions == maps.spans[1][0].positions


def test_passes_of_one_image_have_its_pictures(pipe):
    errors, layouts = [], []

    def after(call, prediction):
        session = attach(pipe)
        site = next(iter(session.sites.values()))
        layouts.append(session.family.layout(pipe.transformer, call.arguments, site))
        for image in (0, 1):
            part = call.of("cond", [image])
            layouts.append(session.family.layout(pipe.transformer, part.arguments, site))
            alone = session.forward(part, "probe")[0]
            own = prediction[call.rows("cond")][image : image + 1]
            errors.append(float((alone - own)[:, :CELLS].abs().max()))
        return prediction

    with attach(pipe).hooked(Hooks(after=after)):
        run(pipe, num_inference_steps=1)
    assert max(errors) < 1e-12
    assert [tuple(one.grid for one in each.references) for each in layouts] == [
        (), ((4, 6),), ((4, 2), (4, 6)),
    ]  # fmt: skip


def test_what_its_latents_cannot_have_is_refused(pipe):
    refused = pytest.raises(EditError, match="to JoyImageEditPlusPipeline, whose latents are no")
    with refused, edit(pipe, Within((0.5, 0.0, 1.0, 1.0))):
        pass
    refused = pytest.raises(ModelError, match="steps the given pictures along")
    with refused, steer(pipe, lambda maps: maps.mean().sum((1, 2, 3))):
        pass
    plain = run(pipe)
    with edit(pipe, KeyMask((0.0, 0.0, 0.5, 1.0))):
        assert (run(pipe) - plain).abs().max() > 1e-5
