"""Joint embeddings of queries and keys: the best scale, distances, the plane, and what is collected
from a model."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from attncontrol.analysis import query_key
from attncontrol.errors import SiteError
from attncontrol.families.known import family_of
from attncontrol.verbs.picture import record_pictures
from tests.kit.records import pictures
from tests.kit.zoo import EXTRA, ZOO


def correlation(c, q, k):
    q, k = q - q.mean(0), k - k.mean(0)
    logits = np.array([[a @ b for b in k] for a in q])
    near = np.array([[-sum((c * a - b / c) ** 2) for b in k] for a in q])
    return np.corrcoef(near.ravel(), logits.ravel())[0, 1]


def vectors(seed=0):
    rng = np.random.default_rng(seed)
    return 5 * rng.standard_normal((9, 4)) + 2, 0.3 * rng.standard_normal((7, 4)) - 1


def test_the_scale_is_the_best_one():
    for seed in range(3):
        q, k = vectors(seed)
        found = query_key.embed(torch.from_numpy(q), torch.from_numpy(k))
        best = minimize_scalar(
            lambda log, q=q, k=k: -correlation(np.exp(log), q, k),
            bounds=(-4, 4),
            options={"xatol": 1e-10},
        )
        assert found.c == pytest.approx(np.exp(best.x), rel=1e-5)
        assert found.correlation == pytest.approx(correlation(found.c, q, k), abs=1e-12)
        assert found.correlation > correlation(1.0, q, k)


def test_distances_and_plane():
    q, k = vectors()
    found = query_key.embed(torch.from_numpy(q), torch.from_numpy(k))
    np.testing.assert_allclose(found.query, found.c * (q - q.mean(0)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.key, (k - k.mean(0)) / found.c, rtol=0, atol=1e-12)
    both = np.concatenate([found.query, found.key])
    values, axes = np.linalg.eigh(both.T @ both)
    plane = both @ axes[:, [-1, -2]]
    expected = np.concatenate([found.query_plane, found.key_plane])
    np.testing.assert_allclose(np.abs(plane), np.abs(expected), rtol=0, atol=1e-10)
    assert found.explained == pytest.approx(values[-2:].sum() / values.sum())
    assert (expected.max(0) == np.abs(expected).max(0)).all()
    flat = query_key.embed(
        torch.from_numpy(q[:, :2]), torch.from_numpy(k[:, :2])
    )  # two dimensions lose nothing
    distance = ((flat.query_plane[:, None] - flat.key_plane) ** 2).sum(-1)
    np.testing.assert_allclose(
        distance, ((flat.query[:, None] - flat.key) ** 2).sum(-1), rtol=0, atol=1e-10
    )
    assert flat.explained == pytest.approx(1)


def test_degenerate_vectors():
    zeros = query_key.embed(torch.zeros(3, 2), torch.ones(4, 2))
    assert (zeros.c, zeros.correlation, zeros.explained) == (1.0, 0.0, 0.0)
    assert np.abs(zeros.query_plane).max() == 0


@pytest.mark.parametrize("name", ["sd", "sd3", "flux"])
def test_what_a_head_sees(name):
    """Softmax of the collected products is the attention of an explicit pass."""
    pipe = ZOO[name]()
    call = {k: v for k, v in EXTRA.get(name, {}).items() if k not in ("height", "width")}
    family = family_of(pipe)
    site = [site for site in family.sites(family.denoiser(pipe)) if site.kind != "self"][1]
    query, key = query_key.collect(
        pipe, pictures(), ["a cat", "a dog"], (site.name, 1), timestep=500.0, **call
    )
    maps = record_pictures(
        pipe, pictures(), ["a cat", "a dog"], timestep=500.0, keep=("head",), **call
    )
    recorded = maps.layers[site.name][:, 0, 0, 1]
    cells, text = recorded.shape[1] * recorded.shape[2], recorded.shape[3]
    image = {"sd": slice(None), "sd3": slice(cells), "flux": slice(text, None)}[name]
    words = {"sd": slice(None), "sd3": slice(cells, None), "flux": slice(text)}[name]
    attention = (query @ key.transpose(1, 2) * query.shape[-1] ** -0.5).softmax(2)
    torch.testing.assert_close(
        attention[:, image, words], recorded.flatten(1, 2).double(), rtol=0, atol=1e-6
    )
    found = query_key.embed(query[0, image], key[0, words])
    assert found.query_plane.shape == (cells, 2)
    assert found.key_plane.shape == (text, 2)
    with pytest.raises(SiteError, match="there is no head 7 at"):
        query_key.collect(
            pipe, pictures(), ["a cat", "a dog"], (site.name, 7), timestep=500.0, **call
        )
