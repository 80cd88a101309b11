"""Private attributes of torch's objects, and what each tells.

Whether one is there shows when it is used. Without it, the code that uses it fails, and that is contained as any other fault:
the graph runs as it came, or is captured as stock captures it.
"""

ATTRIBUTES = {
    "torch.Tensor._version": "what has been written to a tensor is counted there",
    "torch.Tensor._base": "whether a tensor is a view",
    "torch.Tensor._make_subclass": "a parameter is copied, to be compared (`verify`)",
    "torch.UntypedStorage._cdata": "which tensors share memory: fake ones have no address",
    "torch._ops.OpOverload._overloadname": "which form of an operator is taken apart",
    "torch._ops.OpOverload._schema": "what an operator takes, writes and gives",
    "torch._sym_sqrt": "what Dynamo makes of a root of a position",
    "torch.fx.Graph._codegen": "the signature of an exported graph is kept",
    "torch.fx.Graph._target_to_str": "an op that is traced once for many is called as any other",
    "torch.fx.Interpreter._set_current_node": "an op that is traced keeps the user's line",
    "torch.fx.Node._erased": "whether Dynamo has erased a number",
    "torch.fx.Node._rename": "an input keeps its name",
    "torch.fx.GraphModule._backend_id": "whether Dynamo caches a graph, and under which key",
    "torch._dynamo.guards.GuardBuilder._cached_guard_managers": "guards on one tensor share what they look at",
    "torch._guards.Guard._hash": "a guard is made another one",
    "torch._dynamo.convert_frame.CatchErrorsWrapper._torchdynamo_orig_backend": "the backend that Dynamo has wrapped",
    "torch._dynamo.eval_frame.DisableContext._torchdynamo_disable": "whether a function is excluded from compilation",
    "torch._dynamo.eval_frame.DisableContext._torchdynamo_orig_callable": "the function that is excluded",
    "torch._dynamo.package.CompilePackage._codes": "what was loaded and cannot be used is taken out",
    "torch._dynamo.package.CompilePackage._initialized": "the same",
    "torch._dynamo.package.CompilePackage._innermost_fn": "the same",
    "torch._dynamo.package.CompilePackage._installed_globals": "the same",
    "torch._inductor.codegen.triton.TritonKernel._enable_pdl_codegen": "whether kernels can start early",
    "torch._inductor.utils.IndentedBuffer._lines": "the lines of a kernel",
    "torch._inductor.runtime.triton_heuristics.CachingAutotuner._precompile_config": "one configuration is compiled",
}
