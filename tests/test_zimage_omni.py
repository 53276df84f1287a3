"""Z-Image-Omni where the texts of a batch have other lengths, so that pictures lie elsewhere in
each row. Its rotations are of float32."""

import pytest
import torch

from attncontrol import invert, record
from attncontrol.attention.sites import Where
from attncontrol.errors import ModelError
from attncontrol.running.session import Hooks, attach
from tests.kit.zoo_given import GIVEN
from tests.kit.zoo_newer import photo
from tests.reference.loops import Softmax

PROMPTS = ["a dog", "a red cat and a turtle " * 2]
IMAGES = [photo(96, 64, 0), photo(64, 64, 1)]
TEXTS = [64 + 64 + 32, 64 + 96 + 32, 64 + 64 + 32]  # of four parts; that of the empty prompt last
GIVEN_PICTURES = (32, 32)  # 24 and 16 cells, filled up
CELLS, GRID = 24, (4, 6)


@pytest.fixture(scope="module")
def pipe():
    return GIVEN["omni-edit"].make()


def run(pipe, **options):
    call = {"image": IMAGES, "prompt": [*PROMPTS], "height": 64, "width": 96, "guidance_scale": 2.0,
            "num_inference_steps": 2, "output_type": "latent",
            "generator": torch.Generator().manual_seed(0)}  # fmt: skip
    return pipe(**call | options).images


def test_words_and_pictures_lie_where_each_row_has_them(pipe, monkeypatch):
    plain, softmax = run(pipe), []

    def begun(*_):  # by then the autoencoder has had its attention, in bfloat16
        softmax.append(Softmax(monkeypatch))

    hook = pipe.transformer.register_forward_pre_hook(begun)
    run(pipe, num_inference_steps=1)
    hook.remove()
    seen = softmax[0].seen
    joint = [p for p in seen if p.shape[-1] >= max(TEXTS) + 3 * 32][:2]
    alone = [p for p in seen if p.shape[-1] == 3 * 32][:1]
    monkeypatch.undo()
    words = {PROMPTS[0]: ["dog"], PROMPTS[1]: ["turtle"]}
    with record(pipe, words, keep=("head", "step")) as maps:
        assert torch.equal(run(pipe), plain)
    with record(pipe, direction="image->image", where=Where("self"), keep=("head", "step")) as own:
        run(pipe)
    for image in (0, 1):
        first = TEXTS[image] + sum(GIVEN_PICTURES)
        columns = list(maps.spans[image][0].positions)
        texts = [maps.tokens[image][k].text.strip("\u0120") for k in columns]
        assert texts == (["dog"], ["tur", "tle"] * 2)[image]
        assert len(maps.tokens[image]) == TEXTS[image]
        for number, site in enumerate(maps.layers):
            cells = joint[number][image][:, first : first + CELLS]
            expected = cells[..., columns].sum(-1).unflatten(-1, GRID).float()
            found = maps.layers[site][image, 0, 0, ..., 0]
            assert torch.allclose(found, expected, rtol=0, atol=1e-6)
        (among,) = own.layers.values()
        expected = alone[0][image][:, 64 : 64 + CELLS, 64 : 64 + CELLS].unflatten(1, GRID).float()
        assert torch.allclose(among[image, 0, 0], expected, rtol=0, atol=1e-6)


def test_passes_and_pictures_of_one_image_are_its_own(pipe):
    errors, places = [], []

    def after(call, prediction):
        session = attach(pipe)
        (site, *_) = [each for each in session.sites.values() if each.kind == "joint"]
        layout = session.family.layout(pipe.transformer, call.arguments, site)
        places.extend(layout.rows([row]) for row in range(4))
        assert call.branches == ("cond", "uncond")
        for image in (0, 1):
            (alone,) = session.forward(call.of("cond", [image]), "probe")[0]
            errors.append(float((alone - prediction[image]).abs().max()))
        return prediction

    with attach(pipe).hooked(Hooks(after=after)):
        run(pipe, num_inference_steps=1)
    assert max(errors) < 1e-5
    for row, text in zip(places, (*TEXTS, TEXTS[2]), strict=True):
        assert row.image_slice == slice(text + 64, text + 64 + CELLS)
        given = [(one.grid, one.image_slice.start - text) for one in row.references]
        assert given == [((4, 6), 0), ((4, 4), 32)]


def test_it_is_not_inverted(pipe):
    with pytest.raises(ModelError, match="its pipeline writes into the list of prompts"):
        invert(pipe, photo(96, 64, 0), "a cat")
