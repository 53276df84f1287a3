"""Where concepts are in a picture that the prompt need not name: ConceptAttention (Helbling et al.
2025, arXiv 2502.04320).

Concepts are texts of their own, read by the text encoders. Beside the two streams of a
double-stream block runs a third one of the concepts' tokens: it goes through the weights of the
text, and its tokens attend to [concepts, picture] but nothing attends to them:

    o_c = attention output of concept token c over [concepts, picture]
    o_x = that of cell x in the model's own pass
    s   = softmax over concepts of <o_x, o_c>, heads side by side, before the output projection;
          mean over layers and steps

The third stream is the block itself, run again with the cells as they came in and the concepts in
place of the prompt; the picture's part of its result is thrown away. So there is no copy of any
block, and the model's own pass is untouched. The cost is that of the double-stream blocks, twice.

Differences from the official pipeline (newer heat maps there take the mean before the softmax): a
concept has the mean product of all its tokens, not the first one's; concepts are modulated with the
pooled text of the prompt. SD3: the tokens of CLIP and of T5 both stand for the concept.
"""

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment, Purpose
from attncontrol.attention.sites import TEXT, Site, Where
from attncontrol.checks.arguments import SomeWords, checked
from attncontrol.errors import CouplingError, ModelError, WordError
from attncontrol.families.family import Family
from attncontrol.families.parts import default_encoding
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.observers import Hook, inputs_of
from attncontrol.running.session import Hooks, Session, attach
from attncontrol.verbs.photo import Photo
from attncontrol.verbs.picture import noised_call

ConceptMaps = Float[Tensor, "batch concept height width"]
ConceptProducts = Float[Tensor, "batch concept cell"]
PieceOutputs = Float[Tensor, "batch heads piece dim"]
CellOutputs = Float[Tensor, "batch heads cell dim"]


def products(
    cells: CellOutputs, pieces: PieceOutputs, concepts: Sequence[slice]
) -> ConceptProducts:
    """<o_x, o_c> of attention outputs; ``concepts`` are the tokens of each, whose mean counts."""
    of_pieces = torch.einsum("bhxd,bhpd->bpx", cells, pieces)
    return torch.stack([of_pieces[:, places].mean(1) for places in concepts], 1)


@dataclass(eq=False)
class Concepts:
    """``maps`` [batch concept height width], of which the concepts sum to 1 in every cell, and the
    mean ``products`` before the softmax. Complete when the block ends."""

    names: tuple[str, ...]
    maps: ConceptMaps | None = None
    products: ConceptMaps | None = None


@checked
@contextmanager
def concept_attention(
    pipe: Any, concepts: SomeWords, *, where: Where | None = None, **encoding: Any
) -> Iterator[Concepts]:
    """Maps of ``concepts`` in what the pipeline makes meanwhile; the pictures are bit-identical to
    those made without.

    ``where`` are the layers that count: for FLUX.1 the last four double-stream blocks and for SD3
    the layers 5 to 12 unless given. ``encoding`` are arguments of the pipeline that change how it
    reads texts. Raises ModelError for models other than SD3 and FLUX.1, CouplingError.
    """
    result, stream = Concepts(tuple(concepts)), _stream(pipe, concepts, where, encoding)

    def before(call: DenoiserCall) -> None:
        if "cond" in call.branches:
            stream.begin(call)

    hooks = Hooks(sites=stream.sites, listen=stream.keep, before=before, done=stream.end)
    with stream.beside("own"), stream.run.hooked(hooks):
        yield result
    stream.finish(result)


@checked
@torch.no_grad()
def concepts_of_picture(
    pipe: Any,
    picture: Photo,
    prompt: str,
    concepts: SomeWords,
    *,
    timestep: float,
    seed: int = 0,
    where: Where | None = None,
    **call: Any,
) -> Concepts:
    """The same for a picture that exists, noised to a timestep; see ``picture.noised_call``."""
    result, stream = Concepts(tuple(concepts)), _stream(pipe, concepts, where, call)
    part = noised_call(pipe, [picture], [prompt], timestep=timestep, seed=seed, **call)
    with stream.beside("probe"):
        stream.begin(part)
        stream.run.forward(part, "probe", sites=stream.sites, listen=stream.keep)
    stream.finish(result)
    return result


def _stream(
    pipe: Any, concepts: SomeWords, where: Where | None, encoding: Mapping[str, Any]
) -> "_Stream":
    run = attach(pipe)
    family, denoiser = run.family, run.denoiser
    if family.name not in ("sd3", "flux"):
        raise ModelError(
            "concept attention needs the double-stream blocks of SD3 or FLUX.1, "
            f"which {type(pipe).__name__} has not"
        )
    sites = {
        s.name: s
        for s in run.sites.values()
        if getattr(denoiser.get_submodule(s.name), "added_kv_proj_dim", None)
    }
    default = (
        TEXT if isinstance(family.steering, str) else family.steering(tuple(sites.values()))[0]
    )
    chosen = (where or default).select(sites.values())
    states, parts = _read(pipe, family, concepts, encoding)
    return _Stream(run, sites, {site.name for site in chosen}, states, parts)


@torch.no_grad()
def _read(
    pipe: Any, family: Family, concepts: SomeWords, encoding: Mapping[str, Any]
) -> tuple[Tensor, list[slice]]:
    """What the denoiser reads of all concepts [1 piece dim], without special tokens, and where each
    concept is."""
    method = type(pipe).encode_prompt  # not that of the object, which contexts observe
    known = default_encoding(pipe) | dict(encoding)
    accepted = inspect.signature(method).parameters
    named: dict[str, Any] = {name: known.get(name) for name in accepted if name in encoding}
    named |= {name: None for name in ("prompt_2", "prompt_3") if name in accepted}
    if "do_classifier_free_guidance" in accepted:
        named["do_classifier_free_guidance"] = False
    states, parts, start = [], [], 0
    for concept in concepts:
        places = [token.index for token in family.tokens(pipe, concept, known) if not token.special]
        if not places:
            raise WordError(f"the text encoders read nothing in the concept {concept!r}")
        states.append(method(pipe, prompt=concept, **named)[0][:, places])
        parts.append(slice(start, start + len(places)))
        start += len(places)
    denoiser: Any = family.denoiser(pipe)
    return denoiser.context_embedder(torch.cat(states, 1).to(denoiser.dtype)), parts


@dataclass
class _Stream:
    """The concepts' states on their way through the double-stream blocks of one forward of the
    denoiser."""

    run: Session
    sites: Mapping[str, Site]
    chosen: set[str]
    initial: Tensor
    parts: list[slice]
    call: DenoiserCall | None = None
    states: Tensor | None = None
    output: Tensor | None = None
    sums: list[Tensor] = field(default_factory=list)
    count: int = 0

    def begin(self, call: DenoiserCall) -> None:
        self.call = call
        self.states = self.initial.expand(len(call.images), -1, -1)

    def end(self) -> None:
        self.call = None

    @contextmanager
    def beside(self, purpose: Purpose) -> Iterator[None]:
        """Behind every block of passes of this purpose comes the concepts' turn."""
        with ExitStack() as stack:
            for site in self.sites.values():
                block = self.run.denoiser.get_submodule(site.name.rpartition(".")[0])
                after = functools.partial(self._after, site, purpose)
                hook = block.register_forward_hook(Hook(after), with_kwargs=True)
                stack.callback(hook.remove)
            yield

    def keep(self, attention: AttentionCall, _: Moment) -> Tensor:
        self.output = attention.run()
        return self.output

    @torch.no_grad()
    def _after(
        self, site: Site, purpose: Purpose, block: nn.Module, args: Any, kwargs: Any, _: Any
    ) -> None:
        if self.call is not None and self.states is not None and self.run.purpose == purpose:
            self.step(site, self.call, block, inputs_of(block, args, kwargs))

    def step(self, site: Site, call: DenoiserCall, block: Any, arguments: dict[str, Any]) -> None:
        """One block: the concepts' turn comes after the model's own, whose attention output is
        still here."""
        rows, own = call.rows("cond"), self.output
        layout = self.run.family.layout(self.run.denoiser, call.arguments, site)
        inputs = {"encoder_hidden_states": self.states} | {
            name: arguments[name][rows] for name in ("hidden_states", "temb")
        }
        if arguments.get("image_rotary_emb") is not None:  # all text has the same position
            text, pieces = layout.text.stop, self.initial.shape[1]
            inputs["image_rotary_emb"] = tuple(
                torch.cat([angles[:1].expand(pieces, -1), angles[text:]])
                for angles in arguments["image_rotary_emb"]
            )
        concepts = call.of("cond")
        with self.run.passing(concepts, "probe", sites={site.name: site}, listen=self.keep):
            self.states = block.forward(**arguments | inputs)[0]
        if site.name not in self.chosen or own is None or self.output is None:
            return
        first = layout.text.start or 0
        product = products(
            own[rows][:, :, layout.image],
            self.output[:, :, first : first + self.initial.shape[1]],
            self.parts,
        )
        product = product.float().unflatten(2, layout.grid).cpu()
        both = [product.softmax(1), product]
        self.sums = (
            [total + new for total, new in zip(self.sums, both, strict=True)]
            if self.count
            else both
        )
        self.count += 1

    def finish(self, result: Concepts) -> None:
        if not self.count:
            raise CouplingError(
                "no double-stream block ran: call this pipeline inside the with block"
            )
        result.maps, result.products = (total / self.count for total in self.sums)
