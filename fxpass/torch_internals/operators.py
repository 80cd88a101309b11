"""Private names of torch about operators: their classes, their decompositions, and trees of arguments."""

from __future__ import annotations

from typing import Any

from fxpass.torch_internals.contracts import internal

OpOverload: Any = internal("torch._ops.OpOverload")
OpOverloadPacket: Any = internal("torch._ops.OpOverloadPacket")
HigherOrderOperator: Any = internal("torch._ops.HigherOrderOperator")
autograd_functions: Any = internal("torch._C._autograd")
references: Any = internal("torch._refs")
tensor_of_numbers: Any = internal("torch._refs.tensor")
decomposition_table: Any = internal("torch._decomp.decomposition_table")
has_kernel: Any = internal("torch._C._dispatch_has_kernel_for_dispatch_key")
foreach_copy: Any = internal("torch._foreach_copy_")
tree_flatten: Any = internal("torch.utils._pytree.tree_flatten")
tree_unflatten: Any = internal("torch.utils._pytree.tree_unflatten")
tree_leaves: Any = internal("torch.utils._pytree.tree_leaves")
