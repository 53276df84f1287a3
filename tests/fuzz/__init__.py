"""Odd input of every kind: the outcome is a right result or one clear error, never another one.

The suite tries a few of each, the same ones every time; ``FUZZ=2000 python -m pytest -n 0
tests/fuzz`` tries that many new ones, and prints how to repeat one that fails.
"""

import os

from hypothesis import HealthCheck, Phase, settings


def budget(examples: int) -> settings:
    """Decorates a ``@given`` test: this many examples in the suite, ``FUZZ`` of them if it is
    set."""
    large = os.environ.get("FUZZ")
    return settings(
        max_examples=int(large or examples),
        derandomize=large is None,
        database=None,
        deadline=None,
        print_blob=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
