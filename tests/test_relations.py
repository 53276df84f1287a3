"""All four directions of attention against slices of one explicit softmax."""

import pytest
import torch

from attncontrol import Where, record
from attncontrol.errors import SiteError
from attncontrol.families.known import family_of
from tests.kit.runs import PROMPTS, run
from tests.kit.tapping import tap
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import ZOO

WORDS = {PROMPTS[0]: ["cat", "turtle"], PROMPTS[1]: ["dog"]}


def softmax(call):
    return (call.query @ call.key.transpose(-1, -2) * call.query.shape[-1] ** -0.5).softmax(-1)


@pytest.fixture(params=["sd3", "flux"], scope="module")
def seen(request):
    """The pipeline and, of a plain run, one explicit softmax of the conditional rows per site."""
    name = request.param
    pipe = ZOO[name]()
    family = family_of(pipe)
    sites = {
        site.name: site for site in family.sites(family.denoiser(pipe)) if site.kind == "joint"
    }
    rows: dict[str, torch.Tensor] = {}

    def keep(call):
        rows.setdefault(call.site.name, softmax(call)[-2:])
        return call.run()

    with tap(family.denoiser(pipe), sites, keep):
        run(name, pipe, PROMPTS)
    return name, pipe, rows


def recorded(seen, direction, **options):
    name, pipe, _ = seen
    with record(
        pipe, WORDS, direction=direction, keep=("step", "head"), steps=[0], **options
    ) as maps:
        run(name, pipe, PROMPTS)
    return maps


def parts(name, maps, probabilities):
    """(picture, text) as positions of the joint sequence."""
    total = probabilities.shape[-1]
    text = len(maps.tokens[0])
    picture = total - text
    return (
        (torch.arange(picture), torch.arange(picture, total))
        if name == "sd3"
        else (torch.arange(text, total), torch.arange(text))
    )


@pytest.mark.parametrize("direction", ["text->image", "text->text", "image->text"])
def test_words(seen, direction):
    name, _, rows = seen
    maps = recorded(seen, direction)
    for site, p in rows.items():
        picture, text = parts(name, maps, p)
        found = maps.layers[site][:, 0, 0]  # image head height width token
        for b, spans in enumerate(maps.spans):
            for g, span in enumerate(spans):
                mine = text[list(span.positions)]
                if direction == "image->text":
                    expected = p[b][:, picture][..., mine].sum(-1)
                    torch.testing.assert_close(
                        found[b, ..., g].flatten(1), expected.float(), rtol=0, atol=1e-6
                    )
                elif direction == "text->image":
                    expected = p[b][:, mine].mean(1)[:, picture]
                    torch.testing.assert_close(
                        found[b, ..., g].flatten(1), expected.float(), rtol=0, atol=1e-6
                    )
                else:
                    for k, other in enumerate(spans):
                        expected = p[b][:, mine].mean(1)[:, text[list(other.positions)]].sum(-1)
                        torch.testing.assert_close(
                            found[b, :, 0, g, k], expected.float(), rtol=0, atol=1e-6
                        )
        if direction == "text->text":
            assert found.shape[2:] == (1, 2, 2)
        assert found[1, ..., 1].abs().max() == 0  # the second image has one word


def test_all_parts_of_a_row_sum_to_one(seen):
    name, pipe, rows = seen
    sums = {}
    for direction in ("text->image", "text->text"):
        with record(pipe, direction=direction, keep=("head",), steps=[0]) as maps:
            run(name, pipe, PROMPTS)
        for site in rows:
            of_site = maps.layers[site][:, 0, 0]
            mass = (
                of_site.flatten(2, 3).sum(2)
                if direction == "text->image"
                else of_site[:, :, 0].sum(-1)
            )
            sums[site] = sums.get(site, 0) + mass
    for total in sums.values():
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-5)


def test_cells_to_cells_of_joint_attention(seen):
    name, _, rows = seen
    maps = recorded(seen, "image->image")
    for site, p in rows.items():
        picture, _ = parts(name, maps, p)
        torch.testing.assert_close(
            maps.layers[site][:, 0, 0].flatten(2, 3),
            p[:, :, picture][..., picture].float(),
            rtol=0,
            atol=1e-6,
        )
    assert maps.labels == ((), ())


def test_cells_to_cells_of_self_attention(pipe):
    with record(
        pipe, direction="image->image", where=Where(layers=("mid_block",), kind="self"), steps=[0]
    ) as maps:
        pipe("a cat", height=64, width=96, num_inference_steps=2, output_type="latent")
    (of_layer,) = maps.layers.values()
    assert of_layer.shape == (1, 1, 1, 1, 2, 3, 6)
    torch.testing.assert_close(of_layer.sum(-1), torch.ones(1, 1, 1, 1, 2, 3))


def test_a_direction_that_the_model_lacks():
    with (
        pytest.raises(SiteError, match="no attention site matches"),
        record(tiny_sd(), ["cat"], direction="text->image"),
    ):
        pass
    with (
        pytest.raises(SiteError, match="is cross-attention, which has no image->image"),
        record(tiny_sd(), direction="image->image", where=Where(kind="cross")),
    ):
        pass
