"""The training of the bundled models: updates, what is printed, what is left."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FluxPipeline
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attncontrol.errors import ModelError
from attncontrol.sprites import path
from attncontrol.sprites.training import diffusion, flux, pixart, sd, sd3
from attncontrol.sprites.training.diffusion import SD1_NOISE, Terms, load_parts, train_diffusion
from attncontrol.sprites.training.grounding import attention, eager_attention
from attncontrol.sprites.training.latents import Examples, encode_scenes, make_latents, no_text
from attncontrol.sprites.training.muon import Muon, block_matrices
from attncontrol.sprites.training.train import parser
from attncontrol.sprites.training.transformer import picture_errors, train_transformer
from attncontrol.sprites.training.updates import Updates, rate_factor

TRANSFORMERS = pytest.mark.parametrize(
    "recipe", [sd3.RECIPE, flux.RECIPE, pixart.RECIPE], ids=lambda recipe: recipe.name
)


@pytest.fixture(scope="module")
def scenes():
    vae = AutoencoderKL.from_pretrained(Path(path("sd")) / "vae")
    return encode_scenes(vae, seed=0, count=8, captions=4)


def examples_of(data, recipe, batch=4):
    return Examples(data, 1.2424, batch, recipe.flow, no_text())


def fixed_loss(recipe, parts, data):
    terms = Terms.of(recipe, parts)
    example = examples_of(data, recipe)(torch.Generator().manual_seed(1))

    def loss():
        with attention(eager_attention(terms.kept)):
            error, grounding = terms(*example)
        return error + 0.03 * grounding, torch.stack([error, grounding])

    return loss


@TRANSFORMERS
def test_updates_lower_the_loss(recipe, scenes):
    torch.manual_seed(0)
    parts = recipe.make()
    loss = fixed_loss(recipe, parts, scenes)
    with torch.no_grad():
        before = loss()[0].item()
    updates = Updates(parts, loss)
    reported = []
    updates.run(lr=recipe.lr, steps=10, seconds=None, report=reported.append)
    with torch.no_grad():
        after = loss()[0].item()
    assert reported == [10]
    assert after < 0.99 * before
    assert updates.seen[0] > 0
    share = sum(p.numel() for p in block_matrices(parts)) / sum(
        p.numel() for p in parts.parameters()
    )
    assert share > 0.9


@TRANSFORMERS
def test_an_update_stays_on_its_device(recipe, monkeypatch):
    """Tensors on the host, and waiting for the device, are what a CUDA graph cannot hold. "meta" is
    a device of which nothing can be read. transformers reads masks unless a stream is captured."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)

    class OneDevice(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for each in tree_leaves(out):
                assert not isinstance(each, torch.Tensor) or each.device.type == "meta", function
            return out

    parts = recipe.make().to("meta")
    shapes = {
        "latents": (4, 16, 16),
        "owners": (4, 32),
        "coverage": (3, 16, 16),
        "texts": (4, 2, 32),
    }
    types = {"owners": torch.int8, "texts": torch.int16}
    data = {
        name: torch.empty(8, *shape, dtype=types.get(name, torch.half), device="meta")
        for name, shape in shapes.items()
    }
    examples = Examples(data, 1.0, 4, recipe.flow, no_text().to("meta"))
    terms = Terms.of(recipe, parts)
    muon = Muon(block_matrices(parts), torch.zeros((), device="meta"))
    with OneDevice(), attention(eager_attention(terms.kept)):
        error, grounding = terms(*examples())
        (error + grounding).backward()
        muon.step()
    assert all(p.grad is not None for p in block_matrices(parts))


def test_flux_grounds_its_two_kinds_of_blocks_by_halves(scenes):
    terms = Terms.of(flux.RECIPE, flux.RECIPE.make())
    kept = []
    with torch.no_grad(), attention(eager_attention(terms.kept)):
        example = examples_of(scenes, flux.RECIPE)(torch.Generator().manual_seed(1))
        found = terms(*example)[1]
    with torch.no_grad(), attention(eager_attention(kept)):
        latents, noise, t, texts, owners, coverage = example
        share = (t / 1000)[:, None, None, None]
        noisy = (1 - share) * latents + share * noise
        flux.RECIPE.predict(terms.parts, noisy, t, texts)
    maps = [p[:, 32:, :32] for p in kept if p.shape[1] == 96]
    owners = torch.cat([owners[:, 1:], owners[:, -1:]], 1)
    halves = [
        diffusion.grounding_loss(group, owners, coverage, 1 - t / 1000)
        for group in (maps[:3], maps[3:])
    ]
    torch.testing.assert_close(found, sum(halves) / 2)


def test_rates():
    assert rate_factor(0.3, 9) == pytest.approx(0.1)
    assert rate_factor(0.4, 500) == 1
    assert rate_factor(0.75, 500) == pytest.approx(0.5)


@pytest.mark.parametrize("module", [flux, pixart])
def test_errors_of_pictures(module, scenes):
    """A model that says the noise, or the velocity, of a black picture."""
    latents = scenes["latents"].float()
    levels = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    assert SD1_NOISE["beta_schedule"] == "scaled_linear"

    def predict(_parts, noisy, t, _texts):
        if module is flux:
            return noisy / (t / 1000)[:, None, None, None]
        return noisy / (1 - levels[t.long()]).sqrt()[:, None, None, None]

    recipe = replace(module.RECIPE, predict=predict)
    terms = Terms(recipe, torch.nn.ModuleDict(), levels)
    errors = picture_errors(terms, latents, scenes["texts"][:, 0].long())
    assert errors == pytest.approx([latents.square().mean().item()] * 3, rel=1e-3)


def test_what_a_training_leaves(tmp_path, capsys):
    train_transformer(
        flux.RECIPE,
        tmp_path,
        seed=0,
        count=4,
        held_out=2,
        steps=10,
        batch=2,
        start=Path(path("flux")),
    )
    lines = capsys.readouterr().out.splitlines()
    number = r"\d\.\d{4}"
    report = rf"flux step 10 error {number} grounding {number} held-out picture( {number}){{3}}"
    assert [line for line in lines if re.fullmatch(report, line)] != []
    pipe = FluxPipeline.from_pretrained(tmp_path / "flux")
    bundled = FluxPipeline.from_pretrained(path("flux"))
    for name in ("transformer", "text_encoder", "text_encoder_2"):
        states = [getattr(each, name).state_dict() for each in (pipe, bundled)]
        assert states[0].keys() == states[1].keys()
        assert all((a - states[1][key]).abs().max() < 0.02 for key, a in states[0].items())
    moved = pipe.transformer.proj_out.weight - bundled.transformer.proj_out.weight
    assert moved.abs().max() > 0
    for config in tmp_path.rglob("*.json"):
        assert str(Path(path("sd")).parent) not in config.read_text("utf-8")


def test_parts_come_from_those_of_their_class():
    parts = load_parts(pixart.RECIPE, Path(path("flux")))
    encoder = FluxPipeline.from_pretrained(path("flux")).text_encoder_2
    for key, value in encoder.state_dict().items():
        assert torch.equal(parts["text_encoder"].state_dict()[key], value.float())
    with pytest.raises(ModelError, match="has no part of pixart"):
        load_parts(pixart.RECIPE, Path(path("sd")))


def test_the_unet_trains_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(diffusion, "compiled", lambda loss, *_: loss)
    shutil.copytree(Path(path("sd")) / "vae", tmp_path / "vae")
    make_latents(tmp_path, seed=0, count=8)
    data, scaling = diffusion.load_latents(tmp_path)
    assert data["texts"].shape == (8, 1, 2, 32)
    torch.manual_seed(0)
    before = fixed_loss(sd.RECIPE, sd.RECIPE.make(), data)
    parts = train_diffusion(sd.RECIPE, tmp_path, seed=0, steps=8, batch=8)
    after = fixed_loss(sd.RECIPE, parts, data)
    with torch.no_grad():
        assert after()[0] < 0.99 * before()[0]
    diffusion.export(sd.RECIPE, tmp_path, tmp_path / "sd")
    config = AutoencoderKL.from_pretrained(tmp_path / "sd" / "vae").config
    assert config.scaling_factor == pytest.approx(scaling)


def test_command_line(tmp_path):
    line = f"flux --work {tmp_path} --device cuda --seconds 540 --start sprites-flux"
    given = vars(parser().parse_args(line.split()))
    assert given == {
        "stage": "flux",
        "work": tmp_path,
        "seed": 0,
        "device": "cuda",
        "seconds": 540.0,
        "start": Path(path("flux")),
    }
    with pytest.raises(SystemExit):
        parser().parse_args(f"latents --work {tmp_path} --device cuda".split())
