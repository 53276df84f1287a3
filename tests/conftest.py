"""Real diffusers pipelines at tiny size, with random weights."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models; pytest-xdist uses the other cores

import pytest
import torch
from jaxtyping import config

from tests.kit.tiny import tiny_sd


@pytest.fixture
def pipe():
    """float64 Stable Diffusion with 8 x 8 latents and strides 1, 2 and 4."""
    return tiny_sd()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A local pipeline folder."""
    folder = tmp_path_factory.mktemp("model")
    tiny_sd(dtype=torch.float32).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def as_users_have_it():
    """The checks of annotations that the suite adds are off: what the package itself says."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
