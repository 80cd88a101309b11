"""Inductor's kernels wait before they read or write anything, whatever Inductor had in mind."""

from __future__ import annotations

import pytest

from fxpass.torch_internals.inductor import early


class Code:
    def __init__(self, lines: list[object]) -> None:
        self._lines = lines


class Kernel:
    GDC_WAIT, GDC_LAUNCH = "tl.extra.cuda.gdc_wait()", "tl.extra.cuda.gdc_launch_dependents()"

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def _enable_pdl_codegen(self) -> bool:
        return self.enabled


BODIES = [
    ["x = load()", Kernel.GDC_WAIT, "y = load()", Kernel.GDC_WAIT, Kernel.GDC_LAUNCH, "store()"],
    ["for r in range(n):", "    " + Kernel.GDC_WAIT, "    x = load()", "store()"],
    ["store()"],
]


@pytest.mark.parametrize("body", BODIES)
def test_all_wait_first(body: list[str]) -> None:
    code = Code(list(body))
    with early.starting_early():
        early._filter(lambda kernel, code: pytest.fail("Inductor's own"), Kernel(True), code)
    kept = [line for line in body if "gdc" not in line]
    assert code._lines == [Kernel.GDC_LAUNCH, Kernel.GDC_WAIT, *kept]


def test_elsewhere_inductor_does_as_it_likes() -> None:
    code, asked = Code(list(BODIES[0])), []
    early._filter(lambda kernel, code: asked.append(code), Kernel(True), code)
    assert asked == [code]


def test_a_gpu_that_cannot() -> None:
    code = Code(["store()"])
    with early.starting_early():
        early._filter(lambda kernel, code: pytest.fail("Inductor's own"), Kernel(False), code)
    assert code._lines == ["store()"]
