"""What attention control costs on an accelerator; of ``tests.perf.device``."""

from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch._dynamo.utils import counters

from attncontrol import Descent, Where, edit, record, steer
from attncontrol.losses import AttendAndExcite
from tests.perf.device_kit import (
    WORDS,
    NothingHereError,
    apart,
    latents,
    peak,
    require_cuda,
    sd15,
    told,
    turns,
    wide_call,
    wide_flux,
)

FIRST = (
    "native", "_native_flash", "_native_cudnn", "_native_efficient", "sage", "flex",
    "_native_math", "flash", "xformers",
)  # fmt: skip
ELSEWHERE = ("_native_npu", "_native_xla")  # kernels of other devices
FULL = Descent(step_size=20.0, thresholds={}, guided=1.0)
ALL = Where()


def doubled(call, _):
    return call.replace(value=2 * call.value)


def same(call, _):
    """Hands on other tensors of the same values."""
    return call.replace(query=call.query + 0, value=call.value + 0)


def half(call, _):
    """The first half of the keys."""
    length = call.key.shape[2]
    return call.masked((torch.arange(length, device=call.key.device) < length // 2)[None])


CONTEXTS = {
    "plain": lambda _: nullcontext(),
    "record": lambda pipe: record(pipe, WORDS),
    "edit": lambda pipe: edit(pipe, doubled, where=ALL),
    "steer": lambda pipe: steer(pipe, AttendAndExcite(WORDS), descent=FULL),
}


def inside(pipe, context, call, steps=2):
    with context(pipe):
        return latents(pipe, steps=steps, **call)


def backends(device: str):
    shared = {}
    others = [each.value for each in AttentionBackendName]
    for name in [*FIRST, *(each for each in others if each not in (*FIRST, *ELSEWHERE))]:
        if "hub" not in name:
            yield name, partial(_backend, device, name, shared)
    yield "sageattention 1", partial(_own_backend, device, shared)


def shared_flux(device, shared):
    return shared.get("pipe") or shared.setdefault("pipe", wide_flux(device))


def _backend(device, name, shared):
    """``shared`` holds the pipeline of all, and what torch's own kernels made of it."""
    if name in ("_native_cudnn", "_native_efficient"):
        require_cuda(device)
    pipe, call = shared_flux(device, shared), wide_call(device)
    active = _AttentionBackendRegistry._active_backend
    try:
        pipe.transformer.set_attention_backend(name)
    except (RuntimeError, ImportError, ValueError) as error:
        raise NothingHereError(f"{type(error).__name__}: {error}"[:200]) from error
    try:
        return _of_backend(device, pipe, call, name, shared)
    finally:
        pipe.transformer.reset_attention_backend()
        _AttentionBackendRegistry.set_active_backend(active)


def _own_backend(device, shared):
    """A kernel under a key of its own: the SageAttention in Triton, older than diffusers takes."""
    require_cuda(device)
    if not find_spec("sageattention"):
        raise NothingHereError("sageattention is not installed")
    from sageattention import sageattn

    def kernel(query, key, value):
        return sageattn(query, key, value, tensor_layout="NHD")

    registry, pipe = _AttentionBackendRegistry, shared_flux(device, shared)
    active = registry._active_backend
    registry.register("sageattention 1")(kernel)
    try:
        registry.set_active_backend("sageattention 1")
        return _of_backend(device, pipe, wide_call(device), "sageattention 1", shared)
    finally:
        registry.set_active_backend(active)
        for table in (registry._backends, registry._constraints, registry._supported_arg_names):
            table.pop("sageattention 1", None)


def _of_backend(device, pipe, call, name, shared):
    made = partial(inside, pipe, call=call)
    plain = made(CONTEXTS["plain"])
    recorded, notes = told(lambda: made(CONTEXTS["record"]))
    found = {
        "finite": bool(plain.isfinite().all()),
        "plain repeats itself": torch.equal(made(CONTEXTS["plain"]), plain),
        "record leaves the picture": torch.equal(recorded, plain),
    }
    handed, edits = told(lambda: made(lambda pipe: edit(pipe, same, where=ALL)))
    found["edit in the kernel"] = torch.equal(handed, plain)
    masked, masks = told(lambda: made(lambda pipe: edit(pipe, half, where=ALL)))
    found |= {
        "mask changes the picture": apart(masked, plain),
        "told of": {"record": notes, "edit": edits, "mask": masks},
        "one warning of a mask": name == "native" or len(masks) == 1,
    }
    with steer(pipe, AttendAndExcite(WORDS), descent=FULL) as trace:
        latents(pipe, steps=1, **call)
    found["move"], found["loss"] = trace.steps[0].moves[0], trace.steps[0].losses[0]
    shared.setdefault("first", (name, plain, found["move"]))
    first, other, move = shared["first"]
    found[f"latents to {first}"] = apart(plain, other)
    found[f"move to {first}"] = abs(found["move"] - move) / max(move, 1e-12)
    found["gradient is that of the first"] = found["move"] > 0 and found[f"move to {first}"] < 0.05
    runs = {key: partial(made, context) for key, context in CONTEXTS.items()}
    return found | turns(device, runs)


def memory(device: str):
    for name, make, call in (("flux", wide_flux, wide_call(device)), ("sd15", sd15, None)):
        yield name, partial(_memory, device, make, call)


def _memory(device, make, call):
    pipe = make(device)
    if call is None:  # of Stable Diffusion
        call = {"height": 512, "width": 512} if device != "cpu" else {"height": 64, "width": 64}
    contexts = {key: value for key, value in CONTEXTS.items() if key != "edit"}
    runs = {key: partial(inside, pipe, value, call, 4) for key, value in contexts.items()}
    found = turns(device, runs)
    if device.startswith("cuda"):
        found |= {f"{name}, peak MiB": peak(device, run) for name, run in runs.items()}
    return found


COMPILED = {
    "blocks": lambda pipe, how: pipe.transformer.compile_repeated_blocks(**how),
    "whole": lambda pipe, how: pipe.transformer.compile(**how),
}
LAST = Where(layers=("single_transformer_blocks.1",))
LOOKS = {
    "plain": lambda _: nullcontext(),
    "record": lambda pipe: record(pipe, WORDS, where=LAST),
    "edit": lambda pipe: edit(pipe, doubled, where=LAST),
    "steer": lambda pipe: steer(pipe, AttendAndExcite(WORDS), where=LAST, descent=FULL),
}


def compiled(device: str):
    for how in COMPILED:
        yield how, partial(_compiled, device, how)


def _compiled(device, how):
    call, pipe = wide_call(device), wide_flux(device)
    eager = {name: inside(pipe, context, call) for name, context in LOOKS.items()}
    COMPILED[how](pipe, {} if device.startswith("cuda") else {"backend": "eager"})
    made = {name: inside(pipe, context, call) for name, context in LOOKS.items()}
    graphs = counters["stats"]["unique_graphs"]
    runs = {name: partial(inside, pipe, context, call) for name, context in LOOKS.items()}
    found = {f"{name}, latents to eager": apart(made[name], eager[name]) for name in LOOKS}
    found["close"] = all(value < 0.1 for value in found.values())
    found |= turns(device, runs)
    again = counters["stats"]["unique_graphs"] - graphs
    return found | {"graphs before": graphs, "graphs made afterwards": again, "none": not again}


def quantised(device: str):
    yield "torchao", partial(_torchao, device)
    yield "bitsandbytes", partial(_bitsandbytes, device)


def _torchao(device):
    if not find_spec("torchao"):
        raise NothingHereError("torchao is not installed")
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    pipe = wide_flux(device)
    quantize_(pipe.transformer, Int8WeightOnlyConfig())
    return _of_weights(device, pipe)


def _bitsandbytes(device):
    require_cuda(device)
    if not find_spec("bitsandbytes"):
        raise NothingHereError("bitsandbytes is not installed")
    from bitsandbytes.nn import Linear8bitLt

    pipe = wide_flux(device)
    for module in list(pipe.transformer.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear):
                other = Linear8bitLt(
                    child.in_features, child.out_features, child.bias is not None,
                    has_fp16_weights=False,
                )  # fmt: skip
                other.load_state_dict(child.state_dict())
                setattr(module, name, other)
    pipe.transformer.to(device)
    return _of_weights(device, pipe)


def _of_weights(device, pipe):
    call = wide_call(device)
    plain = inside(pipe, CONTEXTS["plain"], call)
    steered = inside(pipe, CONTEXTS["steer"], call)
    return {
        "record leaves the picture": torch.equal(inside(pipe, CONTEXTS["record"], call), plain),
        "steer moves": not torch.equal(steered, plain),
        "finite": bool(steered.isfinite().all()),
    }
