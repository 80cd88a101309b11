"""Private names of torch about fake tensors, and the modes in which they are run."""

from __future__ import annotations

from typing import Any

from fxpass.torch_internals.contracts import internal

FakeTensor: Any = internal("torch._subclasses.fake_tensor.FakeTensor")
FakeTensorMode: Any = internal("torch._subclasses.fake_tensor.FakeTensorMode")
DataDependentOutputException: Any = internal("torch._subclasses.fake_tensor.DataDependentOutputException")
enable_python_dispatcher: Any = internal("torch._dispatch.python.enable_python_dispatcher")
TracingContext: Any = internal("torch._guards.TracingContext")
tracing: Any = internal("torch._guards.tracing")
DisableTorchFunction: Any = internal("torch._C.DisableTorchFunction")
DisableTorchFunctionSubclass: Any = internal("torch._C.DisableTorchFunctionSubclass")
DisableTorchDispatch: Any = internal("torch._C._DisableTorchDispatch")
set_grad_enabled: Any = internal("torch._C._set_grad_enabled")
get_data_attr: Any = internal("torch._C._autograd._get_data_attr")
enter_autocast: Any = internal("torch.amp.autocast_mode._enter_autocast")
exit_autocast: Any = internal("torch.amp.autocast_mode._exit_autocast")


def let_go_of_tensors(mode: FakeTensorMode) -> None:
    """Forget which tensors the fakes of ``mode`` were made of. It holds these weakly, and a tensor that is held so cannot be
    swapped (`torch.utils.swap_tensors`, `Module.to`). Dynamo does the same once it has compiled a frame."""
    mode.fake_tensor_converter.meta_converter.describer.lookup_tensor.clear()
