"""Joint attention that nobody has described: the layout that is found by trying is that of the
tables, and where it cannot be certain the model is refused."""

import pytest
import torch

from attncontrol.errors import ModelError
from attncontrol.families import unknown_joint
from attncontrol.families.known import family_of
from attncontrol.running.observers import named
from tests.kit.zoo import ZOO
from tests.kit.zoo_chat import CHAT

MAKERS = ZOO | CHAT
PROMPT = "a red cat and a turtle"
OPTIONS = {
    "height": 64, "width": 96, "num_inference_steps": 2, "output_type": "latent",
    "max_sequence_length": 16,
}  # fmt: skip


def run(pipe):
    return pipe(PROMPT, generator=torch.Generator().manual_seed(0), **OPTIONS)[0]


def renamed(pipe):
    """The same denoiser, of a class that no table has."""
    cls = type(pipe.transformer)
    pipe.transformer.__class__ = type(f"My{cls.__name__}", (cls,), {"__module__": __name__})
    return pipe


class Sought:
    """A pipeline, what its family says, and the arguments of its first call."""

    def __init__(self, name):
        self.pipe = MAKERS[name]()
        self.family = family_of(self.pipe)
        self.calls = []

        def called(denoiser, args, kwargs):
            self.calls.append(named(denoiser, args, kwargs))

        hook = self.pipe.transformer.register_forward_pre_hook(called, with_kwargs=True)
        run(self.pipe)
        hook.remove()
        renamed(self.pipe)


@pytest.fixture(scope="module", params=["sd3", "sd35", "flux", "qwenimage"])
def sought(request):
    return Sought(request.param)


def test_the_layout_is_that_of_the_tables(sought):
    denoiser, arguments = sought.pipe.transformer, sought.calls[0]
    before = {name: m.processor for name, m in denoiser.named_modules() if hasattr(m, "processor")}
    found = unknown_joint.probed(denoiser, arguments)
    sites = sought.family.sites(denoiser)
    assert set(found) == {site.name for site in sites} == set(before)
    for site in sites:
        known = sought.family.layout(denoiser, arguments, site)
        if site.kind == "self":
            assert found[site.name] == "0 positions change with the text, which has 48"
            continue
        of = found[site.name]
        assert of.grid == known.grid == (4, 6)
        for own, other in ((of.text, known.text), (of.image_slice, known.image_slice)):
            total = 24 + arguments["encoder_hidden_states"].shape[1]
            assert range(total)[own] == range(total)[other], site.name
    assert all(denoiser.get_submodule(name).processor is p for name, p in before.items())


def test_text_that_enters_twice_is_refused(sought):
    denoiser, arguments = sought.pipe.transformer, sought.calls[0]
    cls = type(denoiser)

    def forward(self, hidden_states, encoder_hidden_states, **others):
        mixed = hidden_states + encoder_hidden_states.mean()
        return cls.forward(
            self, hidden_states=mixed, encoder_hidden_states=encoder_hidden_states, **others
        )

    denoiser.__class__ = type("Mixed", (cls,), {"forward": forward, "__module__": __name__})
    try:
        found = unknown_joint.probed(denoiser, arguments)
        site = sought.family.sites(denoiser)[0]
        with pytest.raises(ModelError, match=f"{site.name} is not certain: positions change with"):
            unknown_joint.FAMILY.layout(denoiser, arguments, site)
    finally:
        denoiser.__class__ = cls
    assert all(isinstance(each, str) for each in found.values())


def test_cells_in_another_order_are_refused():
    sought = Sought("sd3")
    embed = sought.pipe.transformer.pos_embed
    hook = embed.register_forward_hook(
        lambda _, __, out: out.unflatten(1, (4, 6)).transpose(1, 2).flatten(1, 2)
    )
    found = unknown_joint.probed(sought.pipe.transformer, sought.calls[0])
    hook.remove()
    assert {each.partition(" than")[0] for each in found.values()} == {
        "its tokens are in another order"
    }
