"""Every public name can be had, and every kernel of the room is described."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tracelens_kernels
from tracelens_kernels import __all__ as names

from tracelens import registry
from tracelens.kernel import OURS, Kernel, complete


@pytest.mark.parametrize("name", names)
def test_every_public_name_leads_somewhere_and_has_a_docstring(name: str) -> None:
    assert getattr(tracelens_kernels, name).__doc__


def test_a_name_that_there_is_not_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="flash_atention"):
        _ = tracelens_kernels.flash_atention


@pytest.mark.parametrize("name", registry.names("kernel"))
def test_every_kernel_can_be_called_measured_and_reckoned(name: str) -> None:
    kernel: Kernel = registry.load("kernel", name)

    assert callable(kernel.function())
    assert kernel.shapes
    for operation in kernel.operations.values():
        assert {OURS, "eager"} <= {*operation.implementations}
        for shape in kernel.shapes:
            work = operation.work(complete(kernel, shape), kernel.dtypes[0])
            assert work.flops >= 0
            assert work.bytes > 0


def test_the_package_loads_neither_torch_nor_triton() -> None:
    code = "import sys, tracelens_kernels as t; dir(t); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
