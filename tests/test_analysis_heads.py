"""Statistics of heads against slow restatements, and what heads are for by switching them off."""

import numpy as np
import pytest
import torch

from attncontrol import Where, record
from attncontrol.analysis import head_statistics as stats
from attncontrol.errors import RecordError, SiteError
from attncontrol.families.known import family_of
from attncontrol.verbs.picture import noised_call
from tests.kit.records import pictures
from tests.kit.zoo import EXTRA, ZOO
from tests.reference import analysis as reference

CALL = {"height": 64, "width": 96, "num_inference_steps": 2, "output_type": "latent"}


def test_maps_against_the_restatement():
    maps = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.testing.assert_allclose(
        stats.entropy(maps), [reference.entropy(m.numpy()) for m in maps], rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(
        stats.spread(maps), [reference.spread(m.numpy()) for m in maps], rtol=0, atol=1e-12
    )
    among = torch.rand(2, 7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    np.testing.assert_allclose(
        stats.spectrum(among), [reference.spectrum(a.numpy()) for a in among], rtol=0, atol=1e-12
    )


def test_degenerate_maps():
    one = torch.zeros(1, 4, 6, dtype=torch.float64)
    one[0, 2, 3] = 0.3
    assert (stats.entropy(one).item(), stats.spread(one).item()) == (0, pytest.approx(0, abs=1e-7))
    assert (stats.entropy(0 * one).item(), stats.spread(0 * one).item()) == (0, 0)
    assert stats.entropy(torch.ones(1, 4, 6)).item() == pytest.approx(1)
    assert stats.spread(torch.ones(1, 200, 200, dtype=torch.float64)).item() == pytest.approx(
        (1 / 12) ** 0.5, abs=1e-4
    )
    assert stats.entropy(torch.ones(1, 1, 1)).item() == 0
    corners = torch.zeros(1, 1, 5)
    corners[0, 0, [0, 4]] = 0.5
    assert stats.spread(corners).item() == pytest.approx(2 / 26**0.5)


def test_attention_among_cells_by_hand():
    itself = torch.eye(4, dtype=torch.float64)[None]
    assert stats.diagonal(itself).item() == 1
    assert stats.diagonal(torch.ones(1, 4, 4)).item() == 0.25
    torch.testing.assert_close(stats.spectrum(itself)[0], torch.zeros(4, dtype=torch.float64))
    parts = torch.block_diag(torch.ones(2, 2), torch.ones(3, 3)).double()[None]
    np.testing.assert_allclose(
        stats.spectrum(parts)[0], [0, 0, 1, 1, 1], rtol=0, atol=1e-12
    )  # two parts
    np.testing.assert_allclose(
        stats.spectrum(torch.ones(1, 4, 4).double())[0], [0, 1, 1, 1], rtol=0, atol=1e-12
    )
    assert stats.spectrum(0 * parts).isfinite().all()


def test_heads_of_a_recording(pipe):
    with record(pipe, keep=("head",)) as maps:
        pipe(["a cat", "a red car"], generator=torch.Generator().manual_seed(0), **CALL)
    rows = stats.of_text(maps)
    assert [(row.site, row.head) for row in rows] == [
        (name, head) for name, site in maps.sites.items() for head in range(site.heads)
    ]
    for row in rows:
        of_head = maps.layers[row.site][:, 0, 0, row.head].double()  # image height width token
        words = [of_head[b, ..., k] for b, count in enumerate((2, 3)) for k in range(1, count + 1)]
        assert row.entropy == pytest.approx(
            np.mean([reference.entropy(w.numpy()) for w in words]), abs=1e-6
        )
        assert row.spread == pytest.approx(
            np.mean([reference.spread(w.numpy()) for w in words]), abs=1e-6
        )
        special = of_head.sum() - sum(word.sum() for word in words)
        assert row.special == pytest.approx(float(special / of_head.sum()), abs=1e-6)
    with record(
        pipe, {"a cat": ["cat"], "a red car": ["car", "red"]}, keep=("head", "step")
    ) as named:
        pipe(["a cat", "a red car"], generator=torch.Generator().manual_seed(0), **CALL)
    row = stats.of_text(named)[0]
    assert row.special is None
    of_head = named.layers[row.site][:, 0, :, 0].double()
    words = [of_head[0, t, ..., 0] for t in range(2)] + [
        of_head[1, t, ..., k] for t in range(2) for k in range(2)
    ]
    assert row.entropy == pytest.approx(
        np.mean([reference.entropy(w.numpy()) for w in words]), abs=1e-6
    )
    with record(pipe, ["cat"]) as averaged:
        pipe("a cat", **CALL)
    with pytest.raises(RecordError, match="the heads of this recording are averaged"):
        stats.of_text(averaged)


def test_cells_of_a_recording(pipe):
    with record(
        pipe, direction="image->image", keep=("head",), where=Where(kind="self", stride=4)
    ) as maps:
        pipe(["a cat", "a dog"], generator=torch.Generator().manual_seed(0), **CALL)
    rows = stats.of_cells(maps)
    assert len(rows) == sum(site.heads for site in maps.sites.values())
    among = maps.layers[rows[1].site][:, 0, 0, rows[1].head].flatten(1, 2).double().numpy()
    assert rows[1].diagonal == pytest.approx(
        np.mean([np.trace(a) / len(a) for a in among]), abs=1e-6
    )
    assert rows[1].connectivity == pytest.approx(
        np.mean([reference.spectrum(a)[1] for a in among]), abs=1e-6
    )


def test_heads_that_are_alike(pipe):
    planes = np.eye(6)[[0, 3, 0, 3, 5]] + 0.01
    labels = stats.clusters(planes, 3)
    assert labels[0] == labels[2] != labels[1] == labels[3]
    assert labels[4] not in labels[:4]
    with record(pipe, ["cat", "turtle"], keep=("head",)) as maps:
        pipe("a cat and a turtle", **CALL)
    heads, rows = stats.patterns(maps, side=8)
    assert rows.shape == (sum(site.heads for site in maps.sites.values()), 2 * 64)
    fine = next(name for name, of in maps.layers.items() if of.shape[-3:-1] == (8, 12))
    first = torch.nn.functional.interpolate(
        maps.layers[fine][0, 0, 0, :1].permute(0, 3, 1, 2), (8, 8), mode="bilinear"
    )
    np.testing.assert_allclose(
        rows[heads.index((fine, 0))], first.double().flatten(), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("name", ["sd", "sd3", "flux"])
def test_importance(name):
    """A head is zero where the rows that the output projection has for it are zero."""
    pipe = ZOO[name]()
    call = {k: v for k, v in EXTRA.get(name, {}).items() if k not in ("height", "width")}
    family = family_of(pipe)
    denoiser = family.denoiser(pipe)
    site = [site for site in family.sites(denoiser) if site.kind in ("self", "joint")][1]
    picture = pictures(1)[0]
    found = stats.importance(
        pipe, picture, "a cat", [(site.name, 0), (site.name, 1)], timestep=400.5, **call
    )
    part = noised_call(pipe, [picture], ["a cat"], timestep=400.5, **call)
    module = denoiser.get_submodule(site.name)
    with torch.no_grad():
        before = denoiser(**part.arguments)[0]
        outputs = [
            module.to_out[0],
            *([module.to_add_out] if getattr(module, "to_add_out", None) is not None else []),
        ]
        for out in outputs:
            width = out.weight.shape[1] // site.heads
            out.weight[:, width : 2 * width] = 0
        after = denoiser(**part.arguments)[0]
    assert found[site.name, 1] == pytest.approx(float((after - before).abs().mean()), abs=1e-12)
    assert found[site.name, 0] != found[site.name, 1]
    with pytest.raises(SiteError, match="there is no head 99 at"):
        stats.importance(pipe, picture, "a cat", [(site.name, 99)], timestep=400.0, **call)
