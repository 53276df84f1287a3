"""What recording and steering cost beside caches of diffusers: python -m tests.perf.caches
[--repeats 3 --steps 12].

The bundled FLUX without a cache, with that of the first block, TaylorSeer, MagCache and pyramid
attention broadcast. A record keeps what runs, so the cache saves as much as without it; steps that
``early`` steers (the first quarter) compute all blocks in their gradient, as those of ``steer`` do.
One thread: taskset -c 1 python -m tests.perf.caches
"""

from functools import partial

from diffusers import (
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
)

from tests.perf.ratios import arguments, bundled, once, table

CONTEXTS = "plain", "record", "early", "steer"


def caches(steps: int):
    return {
        "none": None,
        "first block": FirstBlockCacheConfig(threshold=0.2),
        "TaylorSeer": TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=2),
        "MagCache": MagCacheConfig(
            threshold=0.2, num_inference_steps=steps, mag_ratios=[1.0] * steps,
            retention_ratio=0.2, max_skip_steps=1,
        ),
        "pyramid": PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, 2000),
            spatial_attention_block_identifiers=("transformer_blocks",),
            current_timestep_callback=lambda: 500,
        ),
    }  # fmt: skip


def cached(config):
    pipe = bundled("flux")
    if config is not None:
        pipe.transformer.enable_cache(config)
    return pipe


def main() -> None:
    given = arguments(__doc__)
    runs = {
        name: partial(once, cached(config), "flux", steps=given.steps)
        for name, config in caches(given.steps).items()
    }
    table(runs, CONTEXTS, given.repeats)


if __name__ == "__main__":
    main()
