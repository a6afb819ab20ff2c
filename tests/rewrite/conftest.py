"""Tensors of these tests are made where the kernels run."""

from collections.abc import Iterator

import pytest
import torch

from tests.tiny_models import DEVICE


@pytest.fixture(autouse=True)
def _where_the_kernels_run() -> Iterator[None]:
    with torch.device(DEVICE):
        yield
