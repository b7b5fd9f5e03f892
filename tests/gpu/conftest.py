"""Devices of these checks: a CPU, which proves the checks themselves, and a GPU where there is one."""

from collections.abc import Iterator

import pytest
import torch

NO_GPU = "no GPU here: torch.cuda.is_available() is false"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """PyTorch's name of a device, to be compared with a CPU.

    On a GPU, a check compiles anew. PyTorch compiles a function for a few kinds of arguments, and silently runs it
    uncompiled for any more, such as those of later checks.
    """
    if request.param == "cuda":
        torch.compiler.reset()
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            yield "cuda"
    else:
        yield "cpu"
