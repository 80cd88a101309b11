"""Which products are ours and which cuBLAS': measured once for each shape, and kept for the next process."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fxpass.kernels.launches.limits import MAX_ROWS, MEASURED_ROWS, SURE_ROWS
from fxpass.kernels.products import faster

Times = dict[int, list[float] | Exception]
"""What is measured, by rows: microseconds of our kernel and of cuBLAS."""


def weight(outputs: int = 32, columns: int = 64, dtype: torch.dtype = torch.float32, device: str = "cuda") -> torch.Tensor:
    with FakeTensorMode():
        return torch.empty(outputs, columns, dtype=dtype, device=device)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Callable[[Times], list[tuple[int, ...]]]:
    """Puts given times in the place of what a GPU takes. What it returns grows by each shape that is measured."""

    def put(times: Times) -> list[tuple[int, ...]]:
        asked: list[tuple[int, ...]] = []

        def measured(rows: int, outputs: int, columns: int, *others: object) -> list[float]:
            asked.append((rows, outputs, columns))
            if isinstance(found := times[rows], Exception):
                raise found
            return found

        faster._times.cache_clear()
        monkeypatch.setattr(faster, "_measured", measured)
        return asked

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(faster, "HAS_TRITON", True)
    monkeypatch.setattr(faster, "_file", lambda device: tmp_path / "products" / "gpu.json")
    yield put
    faster._times.cache_clear()


def test_the_faster_one_is_taken(clock: Callable[[Times], list[tuple[int, ...]]]) -> None:
    asked = clock({16: [5.0, 4.0], 32: [4.0, 5.0], MEASURED_ROWS: [4.0, 4.0]})
    assert [faster.is_faster(rows, weight()) for rows in (16, 32, MEASURED_ROWS)] == [False, True, False]
    assert asked == [(16, 32, 64), (32, 32, 64), (MEASURED_ROWS, 32, 64)]


def test_few_rows_are_ours_and_very_many_are_not(clock: Callable[[Times], list[tuple[int, ...]]]) -> None:
    assert not clock({})
    assert faster.is_faster(1, weight()) and faster.is_faster(SURE_ROWS, weight())
    assert not faster.is_faster(MEASURED_ROWS + 1, weight())


def test_each_shape_and_dtype_is_measured_once(clock: Callable[[Times], list[tuple[int, ...]]]) -> None:
    asked = clock({16: [4.0, 5.0]})
    for _ in range(3):
        assert faster.is_faster(16, weight()) and faster.is_faster(16, weight(64, 32))
        assert faster.is_faster(16, weight(dtype=torch.bfloat16))
    assert asked == [(16, 32, 64), (16, 64, 32), (16, 32, 64)]


def test_another_process_does_not_measure(clock: Callable[[Times], list[tuple[int, ...]]]) -> None:
    clock({16: [4.0, 5.0], 32: [5.0, 4.0]})
    assert faster.is_faster(16, weight()) and not faster.is_faster(32, weight())
    asked = clock({})
    assert faster.is_faster(16, weight()) and not faster.is_faster(32, weight())
    assert not asked


def test_a_file_that_is_not_whole_is_written_anew(
    clock: Callable[[Times], list[tuple[int, ...]]], tmp_path: pathlib.Path
) -> None:
    asked = clock({16: [4.0, 5.0]})
    (tmp_path / "products").mkdir()
    (tmp_path / "products" / "gpu.json").write_text('{"16 rows')
    assert faster.is_faster(16, weight()) and len(asked) == 1
    assert list(json.loads((tmp_path / "products" / "gpu.json").read_text()).values()) == [[4.0, 5.0]]
    assert [file.name for file in (tmp_path / "products").iterdir()] == ["gpu.json"]


def test_what_cannot_be_measured_is_left_to_cublas_in_this_process(
    clock: Callable[[Times], list[tuple[int, ...]]], caplog: pytest.LogCaptureFixture
) -> None:
    asked = clock({16: torch.OutOfMemoryError("no memory"), 32: [4.0, 5.0]})
    assert not faster.is_faster(16, weight()) and not faster.is_faster(16, weight())
    assert len(asked) == 1 and "no memory" in caplog.text
    assert faster.is_faster(32, weight())  # which is kept, and nothing of what failed
    clock({16: [4.0, 5.0]})
    assert faster.is_faster(16, weight())


def test_without_a_gpu_there_is_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faster, "_measured", lambda *args: pytest.fail("measured"))
    assert faster.is_faster(MAX_ROWS, weight(device="cpu")) and not faster.is_faster(MAX_ROWS + 1, weight(device="cpu"))


def test_modes_of_the_compilation_do_not_hold_for_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """They belong to a thread: a fake mode, a default device, a function mode."""
    from fxpass.kernels.products import clock  # needs triton

    seen: list[torch.Tensor] = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    monkeypatch.setattr(clock, "times_of_product", lambda *args: seen.append(torch.ones(1) + torch.ones(1)) or [1.0, 2.0])
    with FakeTensorMode(), torch.device("meta"):
        assert faster._measured(16, 32, 64, torch.float32, torch.device("cuda")) == [1.0, 2.0]
    assert seen[0].item() == 2.0


def test_a_failure_in_the_thread_is_one_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device", lambda device: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        faster._measured(16, 32, 64, torch.float32, torch.device("cuda"))
