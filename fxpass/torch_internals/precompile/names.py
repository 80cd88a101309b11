"""Private names of torch's precompile cache."""

from __future__ import annotations

from typing import Any

from fxpass.torch_internals.contracts import internal

lookup_code: Any = internal("torch._dynamo.package._lookup_code")
unique_id: Any = internal("torch._dynamo.bytecode_transformation.unique_id")
BackendCacheArtifact: Any = internal("torch._dynamo.precompile_context.BackendCacheArtifact")
PrecompileContext: Any = internal("torch._dynamo.precompile_context.PrecompileContext")
reset_precompile_entries: Any = internal("torch._C._dynamo.eval_frame._reset_precompile_entries")
GraphPickler: Any = internal("torch.fx._graph_pickler.GraphPickler")
PicklerOptions: Any = internal("torch.fx._graph_pickler.Options")
no_dispatch: Any = internal("torch.utils._mode_utils.no_dispatch")
