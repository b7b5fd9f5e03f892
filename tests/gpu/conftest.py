"""Devices of these checks: a CPU, which proves the checks themselves, and a GPU where there is one."""

import pytest
import torch

NO_GPU = "no GPU here: torch.cuda.is_available() is false"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])])
def device(request: pytest.FixtureRequest) -> str:
    """PyTorch's name of a device, to be compared with a CPU."""
    return str(request.param)
