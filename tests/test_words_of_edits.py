"""Words that edits name and no prompt has are refused before the first pass of the denoiser."""

import pytest
import torch

from attncontrol import On, Where, edit, keep, perturb
from attncontrol.attention.edit import Edit
from attncontrol.edits import (
    AddIt,
    BoundedAttention,
    DenseDiffusion,
    KeyMask,
    LocalBlend,
    MutualAttention,
    OmissionSignal,
    Replace,
    Reweight,
    SoftIdentity,
)
from attncontrol.errors import WordError
from tests.kit.zoo import flux, sd

BOX = (0.0, 0.0, 0.5, 1.0)
SITE = "transformer_blocks.0.attn"
MISSING = "'dog' is not in the prompt 'a red cat'; its words are: a, red, cat"
WITH_WORDS = [
    MutualAttention(words=["dog"]),
    MutualAttention(words=["dog"], start=1.0),
    LocalBlend(("cat", "dog")),
    LocalBlend(without=("dog",)),
    Replace(words={"dog": 0.5}),
    Reweight({"dog": 2.0}),
    KeyMask(words=["dog"]),
    AddIt("dog"),
    DenseDiffusion({"dog": BOX}, first=0.0),
    BoundedAttention({"dog": BOX}),
    BoundedAttention({"cat": BOX}, hidden=["dog"]),
    OmissionSignal({SITE: torch.zeros(2, 8)}, ["dog"], first=0.0),
]
JOINT = (AddIt, OmissionSignal)


def refused(pipe, context):
    """The message of a run that does not reach the denoiser."""
    denoiser, passes = getattr(pipe, "unet", None) or pipe.transformer, []
    handle = denoiser.register_forward_hook(lambda *_: passes.append(1))
    call = {"num_inference_steps": 3, "output_type": "latent", "height": 64, "width": 64}
    with pytest.raises(WordError) as told, context:
        pipe(["a red cat", "a red cat"], **call)
    handle.remove()
    assert not passes
    return str(told.value)


@pytest.mark.parametrize("one", WITH_WORDS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("make", [sd, flux])
def test_words_are_looked_for_before_the_first_pass(one, make):
    if isinstance(one, JOINT) and make is sd:
        pytest.skip("joint attention alone")
    pipe = make()
    assert MISSING in refused(pipe, edit(pipe, one))
    assert MISSING in refused(pipe, edit(pipe, one, steps=(0.9, 1.0)))


def test_in_perturb_too():
    pipe = sd()
    places = [On(SoftIdentity(), Where(kind="self")), On(Reweight({"dog": 2.0}))]
    assert MISSING in refused(pipe, perturb(pipe, places, scale=2.0, steps=(0.9, 1.0)))


def test_of_a_kept_source_either_prompt_has_the_word():
    pipe, call = sd(), {"num_inference_steps": 2, "output_type": "latent"}
    with keep(pipe, MutualAttention(words=["frog"], start=0.0)) as source:
        pipe("a frog", **call)
    taking = MutualAttention(words=["frog"], start=0.0, source=source)
    with edit(pipe, taking):
        pipe("a red cat", **call)
    other = MutualAttention(words=["dog"], start=0.0, source=source)
    with pytest.raises(WordError, match=MISSING), edit(pipe, other):
        pipe("a red cat", **call)


def test_images_that_are_not_edited_need_no_such_word():
    pipe = sd()
    call = {"num_inference_steps": 1, "output_type": "latent"}
    with edit(pipe, Reweight({"dog": 2.0}, images=(1,))), edit(pipe, Replace(words={"dog": 0.5})):
        pipe(["a red cat", "a red dog"], **call)


def test_words_of_sites_that_see_no_text_are_not_looked_for():
    pipe = sd()
    call = {"num_inference_steps": 1, "output_type": "latent"}
    with edit(pipe, DenseDiffusion({"dog": BOX}), where=Where(kind="self")):
        pipe("a red cat", **call)


def test_own_edits_declare_theirs():
    class Mine(Edit):
        where = Where(kind="cross")
        own_words = ("word",)
        word = "dog"

        def __call__(self, call, now):  # noqa: ARG002
            return call

    pipe = sd()
    assert MISSING in refused(pipe, edit(pipe, Mine()))
