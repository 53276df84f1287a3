"""Rates of hits, means over prompts, their differences, and 95 % intervals."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval of a rate."""
    z, p = 1.959964, hits / n
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def by_prompt(values: Mapping[tuple[str, int], float], prompts: Iterable[str]) -> np.ndarray:
    """Mean over the seeds of every prompt, of values by prompt and seed; NaN counts nothing."""
    of_prompt: dict[str, list[float]] = {prompt: [] for prompt in prompts}
    for (prompt, _), value in values.items():
        of_prompt[prompt].append(value)
    return np.array(
        [np.nanmean(v) if not np.isnan(v).all() else np.nan for v in of_prompt.values()]
    )


def bootstrap(of_prompts: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean over prompts, of 2,000 draws of them."""
    rng, count = np.random.default_rng(0), len(of_prompts)
    draws = np.nanmean(of_prompts[rng.integers(count, size=(2_000, count))], axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def gain(plain: np.ndarray, guided: np.ndarray) -> dict[str, Any]:
    """Rates of two [prompt, seed] tables of hits and their difference, with 95 % bootstrap
    intervals over prompts."""
    rng = np.random.default_rng(0)
    pick = rng.integers(len(plain), size=(10_000, len(plain)))
    difference = (guided.mean(1) - plain.mean(1))[pick].mean(1)
    rates = {"plain": plain.mean(), "guided": guided.mean(), "gain": (guided.mean() - plain.mean())}
    intervals = {
        f"{name}_interval": wilson(int(t.sum()), t.size)
        for name, t in (("plain", plain), ("guided", guided))
    }
    intervals["gain_interval"] = tuple(np.quantile(difference, (0.025, 0.975)))
    return {
        "n": int(plain.size),
        **{k: round(float(v), 4) for k, v in rates.items()},
        **{k: [round(float(x), 4) for x in v] for k, v in intervals.items()},
    }
