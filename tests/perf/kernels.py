"""What recording and steering cost under kernels of attention: python -m tests.perf.kernels
[--repeats 3 --steps 8].

sdpa, sliced, eager           the bundled Stable Diffusion with its own processors,
                              ``enable_attention_slicing(1)`` and ``AttnProcessor``
native, _native_math, flex    the bundled FLUX under ``set_attention_backend``; flex runs where
                              ``torch`` compiles it

The sites that are looked into leave sliced and eager attention for torch's kernel; gradients are
torch's under all backends. One thread: taskset -c 1 python -m tests.perf.kernels
"""

from functools import partial

from diffusers.models.attention_processor import AttnProcessor

from tests.perf.ratios import arguments, bundled, once, table

CONTEXTS = "plain", "record", "early", "steer"


def unet(kernel: str):
    pipe = bundled("sd")
    if kernel == "sliced":
        pipe.enable_attention_slicing(1)
    elif kernel == "eager":
        pipe.unet.set_attn_processor(AttnProcessor())
    return pipe


def transformer(backend: str):
    pipe = bundled("flux")
    pipe.transformer.set_attention_backend(backend)
    return pipe


def main() -> None:
    given = arguments(__doc__)
    for model, make, kernels in (
        ("sd", unet, ("sdpa", "sliced", "eager")),
        ("flux", transformer, ("native", "_native_math", "flex")),
    ):
        runs = {kernel: partial(once, make(kernel), model, steps=given.steps) for kernel in kernels}
        table(runs, CONTEXTS, given.repeats)


if __name__ == "__main__":
    main()
