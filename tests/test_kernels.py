"""Attention that does not run through torch's kernel: what is seen of it, which kernel computes it
inside a block, and that all is as before."""

import pytest
import torch
from diffusers.models import attention_dispatch, attention_processor
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from attncontrol import Descent, Where, edit, perturb, record, steer
from attncontrol.attention.kernels import twin_of
from attncontrol.edits import SoftIdentity
from attncontrol.errors import BackendError
from attncontrol.losses import AttendAndExcite
from tests.kit.runs import run
from tests.kit.state import changes, denoiser_of, left_behind, state
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import flux

STEEP = Descent(step_size=20.0, thresholds={})
MAPPED = Where(layers=("transformer_blocks.0",))
CELLS, TEXT = 24, 16  # of the picture and the prompt in the tests' runs of FLUX


@pytest.fixture
def registry():
    """That of diffusers, as it was after the test."""
    tables = ("_backends", "_constraints", "_supported_arg_names")
    before = {name: dict(getattr(_AttentionBackendRegistry, name)) for name in tables}
    active = _AttentionBackendRegistry._active_backend
    yield _AttentionBackendRegistry
    for name, table in before.items():
        getattr(_AttentionBackendRegistry, name).clear()
        getattr(_AttentionBackendRegistry, name).update(table)
    _AttentionBackendRegistry.set_active_backend(active)


class Sparse:
    """Stands for a sparse kernel: each query sees every second key of the sequence it is tuned to.
    It takes no mask and has no gradient."""

    def __init__(self, gain=1.0):
        self.gain, self.calls = gain, 0

    def __call__(self, query, key, value):
        self.calls += 1
        assert key.shape[1] == CELLS + TEXT
        assert not torch.is_grad_enabled() or not query.requires_grad
        logits = torch.einsum("bqhd,bkhd->bhqk", query, key[:, ::2]) * query.shape[-1] ** -0.5
        return self.gain * torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), value[:, ::2])


@pytest.fixture
def sparse(registry):
    """FLUX with a sparse kernel that was registered under a name of its own."""

    def made(kernel):
        def function(query, key, value):
            return kernel(query, key, value)

        registry.register("sparse")(function)
        registry.set_active_backend("sparse")

    return made


def of_flux(**options):
    return run("flux", options.pop("pipe"), max_sequence_length=TEXT, **options)


def first_half(call, _):
    """Of the keys."""
    seen = torch.arange(call.key.shape[2]) < call.key.shape[2] // 2
    return call.masked(seen[None])


@pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning")
@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("backend", ["flex", "_native_math"])
def test_backends_of_diffusers(backend):
    pipe = flux()
    native = of_flux(pipe=pipe)
    with record(pipe, ["cat"]) as expected:
        of_flux(pipe=pipe)
    with steer(pipe, AttendAndExcite(["cat"]), descent=STEEP):
        steered = of_flux(pipe=pipe)
    pipe.transformer.set_attention_backend(backend)
    plain, before = of_flux(pipe=pipe), state(pipe)
    with record(pipe, ["cat"]) as maps:
        assert torch.equal(of_flux(pipe=pipe), plain)
    torch.testing.assert_close(maps["cat"], expected["cat"], rtol=0, atol=1e-7)
    torch.testing.assert_close(plain, native, rtol=0, atol=1e-12)
    with steer(pipe, AttendAndExcite(["cat"]), descent=STEEP):
        torch.testing.assert_close(of_flux(pipe=pipe), steered, rtol=0, atol=1e-9)
    assert not changes(before, state(pipe))
    assert not left_behind(pipe)
    processors = pipe.transformer.attn_processors.values()
    assert {each._attention_backend for each in processors} == {AttentionBackendName(backend)}


def test_a_sparse_kernel_computes_what_is_recorded_and_edited(sparse):
    pipe, kernel = flux(), Sparse()
    exact = of_flux(pipe=pipe)
    sparse(kernel)
    plain, calls = of_flux(pipe=pipe), kernel.calls
    assert (plain - exact).abs().max() > 1e-3
    with record(pipe, ["cat"], where=MAPPED):
        assert torch.equal(of_flux(pipe=pipe), plain)
    assert kernel.calls == 2 * calls

    def doubled(call, _):
        return call.replace(value=2 * call.value)

    with edit(pipe, doubled, where=Where()):
        edited = of_flux(pipe=pipe)
    assert kernel.calls == 3 * calls
    sparse(Sparse(gain=2.0))
    torch.testing.assert_close(of_flux(pipe=pipe), edited, rtol=0, atol=1e-12)


def test_a_sparse_kernel_keeps_the_sites_that_are_not_chosen(sparse):
    pipe, kernel = flux(), Sparse()
    sparse(kernel)
    plain, before, calls = of_flux(pipe=pipe), state(pipe), kernel.calls
    first = r"^1 sites run .* instead of sparse where .* lengths: transformer_blocks.0.attn$"
    with pytest.warns(UserWarning, match=first) as told, edit(pipe, first_half, where=MAPPED):
        masked = of_flux(pipe=pipe)
    assert len(told) == 1
    assert (masked - plain).abs().max() > 1e-4
    assert kernel.calls == 2 * calls - 2  # one site in each of two steps
    assert torch.equal(of_flux(pipe=pipe), plain)
    assert not changes(before, state(pipe))


def test_gradients_are_those_of_exact_attention_at_all_sites(sparse):
    """The kernel has none, so that a site which keeps it would cut the gradient silently."""
    pipe = flux()
    descent = Descent(step_size=20.0, guided=1.0)
    last = Where(layers=("single_transformer_blocks",))

    def loss(maps):
        return maps.mean()[..., 1].flatten(1).mean(1)

    def first_step():
        with steer(pipe, loss, where=last, descent=descent) as trace:
            of_flux(pipe=pipe, steps=1)
        return trace.steps[0].moves

    exact = first_step()
    sparse(Sparse())
    assert first_step() == pytest.approx(exact, rel=1e-12)


EAGER = {
    "eager": lambda pipe: pipe.unet.set_attn_processor(attention_processor.AttnProcessor()),
    "sliced": lambda pipe: pipe.enable_attention_slicing(1),
    "xformers": lambda pipe: pipe.unet.set_attn_processor(
        attention_processor.XFormersAttnProcessor()
    ),
}


@pytest.mark.parametrize("name", EAGER)
def test_eager_sliced_and_xformers_attention(name):
    pipe = tiny_sd()
    plain = run("sd", pipe)
    with record(pipe, ["cat"]) as expected:
        run("sd", pipe)
    EAGER[name](pipe)
    sites = [module for module in pipe.unet.modules() if hasattr(module, "processor")]
    before, kind = state(pipe), type(sites[0].processor).__name__
    with (
        pytest.warns(UserWarning, match=f"^{len(sites)} sites run .* instead of {kind}") as told,
        edit(pipe, lambda call, _: call, where=Where()),
        record(pipe, ["cat"]) as maps,  # of sites that were named already
    ):
        assert torch.equal(run("sd", pipe), plain)  # that of torch's kernel
    assert len(told) == 1
    assert torch.equal(maps["cat"], expected["cat"])
    assert not changes(before, state(pipe))
    if name == "xformers":
        return  # the package is not here
    torch.testing.assert_close(run("sd", pipe), plain, rtol=0, atol=1e-11)
    one = Where("cross", layers=("mid_block",))
    with pytest.warns(UserWarning, match="^1 sites"), record(pipe, ["cat"], where=one):
        run("sd", pipe)
    with (
        pytest.raises(KeyboardInterrupt),
        pytest.warns(UserWarning, match="^1 sites"),
        perturb(pipe, SoftIdentity(), scale=1.0, where=Where("self", layers=("mid_block",))),
        steer(pipe, lambda _: (_ for _ in ()).throw(KeyboardInterrupt), where=one),
    ):
        run("sd", pipe)
    assert not changes(before, state(pipe))
    assert not left_behind(pipe)


def test_twins_have_what_diffusers_says_they_share():
    """Every eager, sliced and xformers class of diffusers has one, and its call takes the same."""
    plain = tiny_sd().unet.mid_block.attentions[0].transformer_blocks[0].attn1
    prefixes = ("XFormers", "Sliced", "IPAdapterXFormers", "CustomDiffusionXFormers")
    names = [name for name in vars(attention_processor) if name.endswith("Processor")]
    for name in [each for each in names if each.startswith(prefixes)]:
        one = object.__new__(getattr(attention_processor, name))
        assert twin_of(one, plain).__name__.endswith("2_0")
    plain.scale_qk = False
    assert twin_of(attention_processor.AttnProcessor(), plain) is None


class Other:
    """Attention of some other mathematics."""

    def __call__(self, attn, hidden_states, **_):
        return attn.to_out[0](hidden_states.cumsum(1))


def test_other_mathematics_is_refused_where_it_is_chosen():
    pipe = tiny_sd()
    place = "mid_block.attentions.0.transformer_blocks.0.attn1"
    denoiser_of(pipe).get_submodule(place).set_processor(Other())
    plain, before = run("sd", pipe), state(pipe)
    with record(pipe, ["cat"]):  # cross-attention alone
        assert torch.equal(run("sd", pipe), plain)
    named = rf"attention at {place} ran without torch's .* \(Other\)"
    with pytest.raises(BackendError, match=named), edit(pipe, lambda call, _: call, where=Where()):
        run("sd", pipe)
    assert not changes(before, state(pipe))


def test_dispatch_is_what_the_package_relies_on():
    """Names of diffusers that are not public."""
    assert attention_dispatch.dispatch_attention_fn
    assert AttentionBackendName.NATIVE in _AttentionBackendRegistry.list_backends()
