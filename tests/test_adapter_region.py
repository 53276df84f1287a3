"""AdapterRegion on FLUX with IP-Adapters, which diffusers gives no masks."""

import pytest
import torch
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor

from attncontrol.edits import AdapterRegion
from attncontrol.errors import CouplingError, SettingError, SiteError
from attncontrol.verbs.edit import edit
from attncontrol.verbs.record import record
from tests.kit.runs import run
from tests.kit.zoo import flux, sd

PROMPTS = ["a red cat", "a frog"]
LEFT = (0.0, 0.0, 0.25, 1.0)  # one and a half of six cells
SHARES = [1.0, 0.5, 0.0, 0.0, 0.0, 0.0]
GUIDED = {"true_cfg_scale": 3.0, "negative_prompt": ["", ""]}


def adapted(cls=FluxIPAdapterAttnProcessor, adapters=1):
    """FLUX with IP-Adapters of random weights."""
    pipe = flux()
    torch.manual_seed(1)
    processors = {}
    for name, processor in pipe.transformer.attn_processors.items():
        double = not name.startswith("single")
        processors[name] = (
            cls(32, 32, [4] * adapters, scale=[1.0] * adapters) if double else processor
        )
    layers = [ImageProjection(8, 32, 4) for _ in range(adapters)]
    pipe.transformer.encoder_hid_proj = MultiIPAdapterImageProjection(layers)
    pipe.transformer.set_attn_processor(processors)
    pipe.transformer.config.encoder_hid_dim_type = "ip_image_proj"
    pipe.transformer.to(torch.float64).requires_grad_(False)
    return pipe


def made(pipe, adapters=1, **call):
    pictures = [
        torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(3 + i), dtype=torch.float64)
        for i in range(2 * adapters)
    ]
    given = {"ip_adapter_image_embeds": pictures[:adapters]}
    given["negative_ip_adapter_image_embeds"] = pictures[adapters:]
    return run("flux", pipe, PROMPTS, **given | call)


class Masked(FluxIPAdapterAttnProcessor):
    """What the adapter adds to each cell, times its share."""

    images = (0, 1)

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None,
        image_rotary_emb=None, ip_hidden_states=None, ip_adapter_masks=None,
    ):  # fmt: skip
        picture, text, added = super().__call__(
            attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb,
            ip_hidden_states, ip_adapter_masks,
        )  # fmt: skip
        for image in self.images:
            for cell in range(24):
                added[image, cell] *= SHARES[cell % 6]
        return picture, text, added


@pytest.mark.parametrize("call", [{}, GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize("adapters", [1, 2])
def test_the_adapter_acts_in_its_region(adapters, call):
    pipe = adapted(adapters=adapters)
    plain = made(pipe, adapters, **call)
    expected = made(adapted(Masked, adapters), adapters, **call)
    with edit(pipe, AdapterRegion(LEFT)):
        edited = made(pipe, adapters, **call)
    torch.testing.assert_close(edited, expected, rtol=0, atol=1e-10)
    assert (edited - plain).flatten(1).abs().amax(1).min() > 1e-3
    assert torch.equal(made(pipe, adapters, **call), plain)


def test_of_some_images_and_beside_others():
    pipe = adapted()
    plain = made(pipe)
    with edit(pipe, AdapterRegion(LEFT, images=(1,))), record(pipe, ["a"]):
        one = made(pipe)
    with edit(pipe, AdapterRegion(LEFT)):
        both = made(pipe)
    assert torch.equal(one[0], plain[0])
    assert torch.equal(one[1], both[1])
    with edit(pipe, AdapterRegion((0.0, 0.0, 1.0, 1.0))):
        torch.testing.assert_close(made(pipe), plain, rtol=0, atol=1e-12)
    wrong = edit(pipe, AdapterRegion(LEFT, images=(2,)))
    with pytest.raises(CouplingError, match=r"images=\(2,\), but the pipeline makes 2"), wrong:
        made(pipe)


def test_models_without_adapter_are_refused():
    for pipe in (flux(), sd()):
        with pytest.raises(
            SiteError, match=r"no module of \w+ is 'transformer_blocks\.|no attention"
        ):
            edit(pipe, AdapterRegion(LEFT)).__enter__()
    with pytest.raises(SettingError, match="the box of the region"):
        AdapterRegion((0.5, 0.0, 0.5, 1.0))
