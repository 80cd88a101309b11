"""Private names of torch that tracing with `make_fx` takes."""

from __future__ import annotations

from typing import Any

from fxpass.torch_internals.contracts import internal

extract_val: Any = internal("torch.fx.experimental.proxy_tensor.extract_val")
get_proxy_mode: Any = internal("torch.fx.experimental.proxy_tensor.get_proxy_mode")
get_proxy_slot: Any = internal("torch.fx.experimental.proxy_tensor.get_proxy_slot")
make_fx: Any = internal("torch.fx.experimental.proxy_tensor.make_fx")
maybe_enable_thunkify: Any = internal("torch.fx.experimental.proxy_tensor.maybe_enable_thunkify")
track_tensor: Any = internal("torch.fx.experimental.proxy_tensor.track_tensor")
