"""Private names of Inductor."""

from __future__ import annotations

from typing import Any

from fxpass.torch_internals.contracts import internal

compile_fx: Any = internal("torch._inductor.compile_fx.compile_fx")
compile_fx_inner: Any = internal("torch._inductor.compile_fx.compile_fx_inner")
aot_eager: Any = internal("torch._dynamo.backends.debugging.aot_eager")
cudagraphs_log: Any = internal("torch._inductor.cudagraph_utils.cudagraphs_log")
get_first_incompatible_cudagraph_node: Any = internal("torch._inductor.utils.get_first_incompatible_cudagraph_node")
list_options: Any = internal("torch._inductor.list_options")
maybe_warm_pool: Any = internal("torch._inductor.async_compile.maybe_warm_pool")
triton_cache_dir: Any = internal("torch._inductor.runtime.runtime_utils.triton_cache_dir")
cudagraph_trees: Any = internal("torch._inductor.cudagraph_trees")
