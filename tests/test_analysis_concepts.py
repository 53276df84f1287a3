"""ConceptAttention against a third stream that is written out, and on running pipelines."""

import itertools
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from torch import nn

from attncontrol import Where, record
from attncontrol.analysis.concept_attention import concept_attention, concepts_of_picture, products
from attncontrol.edits import SkipAttention
from attncontrol.errors import CouplingError, ModelError, SiteError, WordError
from attncontrol.families.known import family_of
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.picture import noised_call
from tests.kit.records import pictures
from tests.kit.zoo import ZOO, flux, sd3, sd35
from tests.reference import analysis as reference

MAKE = {"sd3": sd3, "sd35": sd35, "flux": flux}
CONCEPTS = ["turtle", "sky", "red car"]
CALL = {"height": 64, "width": 96, "num_inference_steps": 2, "max_sequence_length": 16}
ALL = Where(kind="joint", layers=("transformer_blocks",))


def text_states(name, pipe, concept):
    """Of one concept, by the pipeline's own encoders, start, end and padding left out."""
    options = {} if name == "flux" else {"prompt_3": None, "do_classifier_free_guidance": False}
    states = pipe.encode_prompt(concept, prompt_2=None, max_sequence_length=16, **options)[0]
    tokens = family_of(pipe).tokens(pipe, concept, {"max_sequence_length": 16})
    return states[0, [token.index for token in tokens if not token.special]]


def inputs_of_blocks(pipe, part):
    """What comes into each double-stream block, and the picture's attention output of each, before
    the output projection."""
    kept, outputs = [], []
    hooks = []
    for block in pipe.transformer.transformer_blocks:
        hooks.append(
            block.register_forward_pre_hook(
                lambda _m, _a, kwargs: kept.append(kwargs), with_kwargs=True
            )
        )
        hooks.append(
            block.attn.to_out[0].register_forward_pre_hook(lambda _m, args: outputs.append(args[0]))
        )
    pipe.transformer(**part.arguments)
    for hook in hooks:
        hook.remove()
    return kept, outputs


def rotated(x, rotary, rows):
    """RoPE of FLUX: pairs of neighbouring numbers."""
    cos, sin = (of[rows] for of in rotary)
    turned = torch.stack([-x[..., 1::2], x[..., 0::2]], -1).flatten(-2)
    return x * cos + turned * sin


def written_out(name, block, inputs, states):
    """(attention outputs [piece width], states after the block) of the concepts in one block, by
    its weights."""
    attn, temb, heads = block.attn, inputs["temb"][:1], block.attn.heads
    last = getattr(block, "context_pre_only", False)
    normed = (
        block.norm1_context(states[None], temb)
        if last
        else block.norm1_context(states[None], emb=temb)
    )
    concept, *modulation = (normed,) if last else normed
    cells = block.norm1(inputs["hidden_states"][:1], emb=temb)[0]

    def split(x, norm):
        x = x[0].unflatten(-1, (heads, -1)).transpose(0, 1)
        return x if norm is None else norm(x)

    q = split(attn.add_q_proj(concept), attn.norm_added_q)
    own = split(attn.add_k_proj(concept), attn.norm_added_k), split(attn.add_v_proj(concept), None)
    of_cells = split(attn.to_k(cells), attn.norm_k), split(attn.to_v(cells), None)
    if name == "flux":
        rotary = inputs["image_rotary_emb"]
        text = len(rotary[0]) - cells.shape[1]
        first = torch.zeros(states.shape[0], dtype=torch.long)  # all text is at position 0
        q, own = rotated(q, rotary, first), (rotated(own[0], rotary, first), own[1])
        of_cells = rotated(of_cells[0], rotary, slice(text, None)), of_cells[1]
    key, value = (torch.cat(of, 1) for of in zip(own, of_cells, strict=True))
    outputs = [reference.attended(*(of[h].numpy() for of in (q, key, value))) for h in range(heads)]
    output = torch.from_numpy(np.concatenate(outputs, 1))
    if last:
        return output, None
    gate, shift_mlp, scale_mlp, gate_mlp = (of[0] for of in modulation)
    states = states + gate * attn.to_add_out(output)
    return output, states + gate_mlp * block.ff_context(
        block.norm2_context(states) * (1 + scale_mlp) + shift_mlp
    )


@torch.no_grad()
@pytest.mark.parametrize("name", MAKE)
def test_against_a_stream_that_is_written_out(name):
    pipe = MAKE[name]()
    picture, options = pictures(1)[0], {"timestep": 400.0, "seed": 2, "max_sequence_length": 16}
    found = concepts_of_picture(pipe, picture, "a cat and a frog", CONCEPTS, where=ALL, **options)
    part = noised_call(pipe, [picture], ["a cat and a frog"], **options)
    inputs, outputs = inputs_of_blocks(pipe, part)
    each = [text_states(name, pipe, concept) for concept in CONCEPTS]
    states, ends = (
        pipe.transformer.context_embedder(torch.cat(each)),
        np.cumsum([0, *map(len, each)]),
    )
    assert max(map(len, each)) > 2  # several tokens to a concept
    of_layers = []
    for block, of_block, cells in zip(
        pipe.transformer.transformer_blocks, inputs, outputs, strict=True
    ):
        pieces, states = written_out(name, block, of_block, states)
        positions = [range(start, end) for start, end in itertools.pairwise(ends)]
        of_layers.append(
            torch.from_numpy(
                reference.concept_products(cells[0].numpy(), pieces.numpy(), positions)
            )
        )
    softmax = torch.stack([of.softmax(0) for of in of_layers]).mean(0)
    torch.testing.assert_close(
        found.products[0].flatten(1), torch.stack(of_layers).mean(0).float(), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(found.maps[0].flatten(1), softmax.float(), rtol=0, atol=1e-6)
    last = concepts_of_picture(
        pipe,
        picture,
        "a cat and a frog",
        CONCEPTS,
        where=Where(layers=("transformer_blocks.1",)),
        **options,
    )
    torch.testing.assert_close(
        last.maps[0].flatten(1), of_layers[1].softmax(0).float(), rtol=0, atol=1e-6
    )


def test_products_by_hand():
    cells = torch.tensor(
        [[[[1.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [0.0, 0.0]]]]
    )  # one picture, two heads, two cells
    pieces = torch.tensor(
        [[[[1.0, 1.0], [3.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 0.0], [5.0, 5.0]]]]
    )
    found = products(cells, pieces, [slice(0, 1), slice(1, 3)])
    assert found.tolist() == [[[3.0, 2.0], [(3 + 10) / 2, (0 + 2) / 2]]]


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_run_of_the_pipeline(name, guidance):
    """Maps of a run are those of its steps; pictures and other recordings do not change; all is
    undone."""
    pipe = MAKE[name]()
    call = CALL | {"output_type": "latent"}
    if name == "flux":
        call |= {"true_cfg_scale": guidance, "negative_prompt": "a dog"}
    else:
        call["guidance_scale"] = guidance
    prompts = ["a cat and a frog", "a horse"]

    def run(steps=2):
        return pipe(
            prompts,
            generator=torch.Generator().manual_seed(0),
            **call | {"num_inference_steps": steps},
        ).images

    with record(pipe, {prompts[0]: ["cat"], prompts[1]: ["horse"]}) as expected:
        plain = run()
    with record(pipe, {prompts[0]: ["cat"], prompts[1]: ["horse"]}) as maps, concept_attention(
        pipe, CONCEPTS, where=ALL, max_sequence_length=16
    ) as found:  # fmt: skip
        assert torch.equal(run(), plain)
    for site, of_layer in maps.layers.items():
        assert torch.equal(of_layer, expected.layers[site])
    cells = (4, 6)
    assert found.names == tuple(CONCEPTS)
    assert found.maps.shape == found.products.shape == (2, 3, *cells)
    torch.testing.assert_close(found.maps.sum(1), torch.ones(2, *cells))
    alone = [prompts[1]]
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    with concept_attention(pipe, CONCEPTS, where=ALL, max_sequence_length=16) as both:
        pipe(alone * 2, generator=generators, **call)
    torch.testing.assert_close(
        both.maps[0], both.maps[1], rtol=0, atol=1e-6
    )  # rows are not mixed up
    for block in pipe.transformer.transformer_blocks:
        assert not block._forward_hooks
    assert torch.equal(run(), plain)


@torch.no_grad()
@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_the_first_step_of_a_run_is_noise(name):
    """Timestep 1000 of rectified flow: what a run sees first and a picture noised to that end are
    the same."""
    pipe = MAKE[name]()
    picture = np.zeros((64, 96, 3), np.uint8)
    options = {"where": ALL, "max_sequence_length": 16}
    seen = concepts_of_picture(pipe, picture, "a cat", CONCEPTS, timestep=1000.0, seed=3, **options)
    shape = (4, 8, 12) if name == "sd3" else (24, 16)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(3))[None].double()
    with concept_attention(pipe, CONCEPTS, **options) as found:
        pipe("a cat", latents=latents, **CALL | {"num_inference_steps": 1, "output_type": "latent"})
    torch.testing.assert_close(found.maps, seen.maps, rtol=0, atol=1e-5)


@pytest.mark.parametrize("outside", [True, False])
def test_other_contexts_are_not_seen(outside):
    """The extra pass of perturb is not the model's own: the maps of the first step stay, and so
    does the picture."""
    pipe = ZOO["sd3"]()

    def run(*contexts):
        with ExitStack() as stack:
            entered = [stack.enter_context(context) for context in contexts]
            image = pipe(
                "a cat",
                generator=torch.Generator().manual_seed(0),
                **CALL | {"num_inference_steps": 1, "output_type": "latent"},
            ).images
        return image, entered

    def weakened():
        return perturb(
            pipe, SkipAttention(), where=Where(layers=("transformer_blocks.1",)), scale=2.0
        )

    def concepts():
        return concept_attention(pipe, CONCEPTS, where=ALL, max_sequence_length=16)

    plain, (expected,) = run(concepts())
    image, _ = run(weakened())
    order = [weakened(), concepts()] if outside else [concepts(), weakened()]
    other, entered = run(*order)
    assert torch.equal(other, image)
    assert not torch.equal(other, plain)
    torch.testing.assert_close(entered[1 if outside else 0].maps, expected.maps, rtol=0, atol=1e-6)


def test_errors():
    pipe = ZOO["sd3"]()
    with (
        pytest.raises(ModelError, match="needs the double-stream blocks of SD3 or FLUX"),
        concept_attention(ZOO["sd"](), ["a"]),
    ):
        pass
    with (
        pytest.raises(CouplingError, match="the denoiser was never called"),
        concept_attention(pipe, ["cat"]),
    ):
        pass
    with (
        pytest.raises(WordError, match="read nothing in the concept ' '"),
        concept_attention(pipe, [" "]),
    ):
        pass
    with (
        pytest.raises(SiteError, match="no attention site matches"),
        concept_attention(pipe, ["a"], where=Where(layers=("mid",))),
    ):
        pass
    assert not any(
        isinstance(block, nn.Module) and block._forward_hooks
        for block in pipe.transformer.transformer_blocks
    )
