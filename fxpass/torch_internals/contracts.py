"""What kvfix takes of torch that is not public: one table, read by code and printed into docs/torch-internals.md.

    install_guard = internal("torch._dynamo.guards.install_guard")       a name: the object, or a stand-in for what is missing
    patch("torch._dynamo.reset_code_state", hook)                        a function that is replaced (see `patches`)

Both look the name up here, so nothing private is used that the table does not know. A name that torch lacks, or a function
that takes other parameters, costs the `Feature` that needs it; `features` says which features are left.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
from typing import Any

import torch

from fxpass.torch_internals.lookup import Missing, resolve, stand_in


class Feature(enum.Enum):
    """What rests on a private name; the value says what happens without it."""

    NEEDED = "kvfix declines: the model runs on stock Inductor"
    INDUCTOR = "kvfix declines where it is to hand graphs to Inductor: the model runs on stock Inductor"
    FALLBACK = "where kvfix declines, graphs are not compiled but run as Dynamo gave them"
    CAPTURE = "positions in tensors are not captured: they break the graph, as with stock torch.compile"
    PRECOMPILE = "nothing is kept in torch's precompile cache"
    PIECES = "layers that repeat are compiled one by one, and Inductor records the core"
    RETRACE = "the step that fills a cache is a graph of its own"
    OVERLAP = "pieces are lowered one after the other"
    EARLY = "a kernel of Inductor's is started when the one before is done"
    LOWERINGS = "rows are written to a cache by kernels of their own; all results of a recording are computed in one loop"
    THREADS = "threads that share a compiled model may compile it more than once"
    PARALLEL = "the configurations of a kernel are compiled one after the other"
    TUNING = "the configuration of a small kernel is the one that the host launched fastest"
    MARKS = "a script that shows a difference does not say which sizes were dynamic, and what belonged to a module"
    ASKED = "sizes and strides that are symbols of a graph take longer to read from its inputs"
    AGAIN = "a graph for each length of a list, or for each key, is not warned of"
    COUNTING = "`kvfix demo`, `bench` and `reach` do not count recompilations and recordings"


@dataclasses.dataclass(frozen=True)
class Contract:
    """One private name and the feature that is lost without it.

    parameters: the first parameters of a function that is replaced, or called with positional arguments.
    exact: whether these are all parameters: what takes the function's place takes no others (`patches.replace`).
    since, until: the first and the last release of torch that has the name, where these are not all of `RELEASES`.
    why: why there is no public way.
    """

    name: str
    feature: Feature
    parameters: tuple[str, ...] = ()
    exact: bool = False
    since: str = ""
    until: str = ""
    why: str = ""

    def resolve(self) -> Any:
        """The object itself.

        Raises:
            Missing: this torch has no such name.
        """
        return resolve(self.name)

    def applies(self) -> bool:
        """Whether this release of torch is one that has the name."""
        here = _release(torch.__version__)
        return (not self.since or _release(self.since) <= here) and (not self.until or here <= _release(self.until))

    def broken(self) -> str | None:
        """Why the contract does not hold; None where it holds, or where this release is not meant to have the name."""
        if not self.applies():
            return None
        try:
            found = self.resolve()
        except Missing as missing:
            return str(missing)
        owner, _, name = self.name.rpartition(".")
        if self.parameters and name not in vars(resolve(owner)):
            return f"{self.name} is inherited"
        if self.parameters:
            stock = inspect.unwrap(found)
            given = tuple(inspect.signature(stock).parameters)
            if (given if self.exact else given[: len(self.parameters)]) != self.parameters:
                return f"{self.name} takes ({', '.join(given)}), not {self.signature()}"
        return None

    def signature(self) -> str:
        """``parameters`` as text, ``(self, value, ...)``; empty where there are none."""
        further = [] if self.exact else ["..."]
        return f"({', '.join([*self.parameters, *further])})" if self.parameters else ""


RELEASES = ("2.11", "2.12", "2.13", "2.14", "2.15")
"""The torch releases that the hooks are written for; 2.11, 2.13, 2.14 and 2.15 are tested."""


def internal(name: str) -> Any:
    """The private object of torch that is called ``name`` in the table. Where torch lacks it, a class that raises `Missing`
    when called."""
    contract = TABLE[name]
    try:
        return contract.resolve()
    except Missing as missing:
        return stand_in(name, missing)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _names(feature: Feature, module: str, names: str) -> list[Contract]:
    return [Contract(f"{module}.{name}", feature) for name in names.split()]


def _call(feature: Feature, name: str, parameters: str, **rest: Any) -> Contract:
    return Contract(name, feature, tuple(parameters.split()), **rest)


_RESET = "a backend's own `reset` is called by the first reset after `torch.compile` only"
_N, _C, _P = Feature.NEEDED, Feature.CAPTURE, Feature.PRECOMPILE

_ROWS = [
    # Graphs and their values
    *_names(_N, "torch._subclasses.fake_tensor", "FakeTensor FakeTensorMode DataDependentOutputException"),
    *_names(_N, "torch._guards", "CompileContext TracingContext tracing Source ChainedSource"),
    *_names(_N, "torch._logging", "trace_structured"),
    *_names(_N, "torch._dispatch.python", "enable_python_dispatcher"),
    *_names(_N, "torch._decomp", "decomposition_table"),
    Contract("torch._foreach_copy_", _N, why="the operator, called by its name, takes three times as long"),
    *_names(_N, "torch._ops", "OpOverload OpOverloadPacket HigherOrderOperator"),
    *_names(_N, "torch._C", "DisableTorchFunction DisableTorchFunctionSubclass _DisableTorchDispatch"),
    *_names(_N, "torch._C", "_set_grad_enabled _autograd _autograd._get_data_attr"),
    Contract("torch._refs", _N, why="Dynamo puts `torch._refs.tensor` for `torch.tensor` of numbers that move"),
    *_names(_N, "torch._refs", "tensor"),
    _call(_N, "torch._C._dispatch_has_kernel_for_dispatch_key", "", why="no public question tells a composite operator"),
    *_names(_N, "torch.amp.autocast_mode", "_enter_autocast _exit_autocast"),
    *_names(_N, "torch.fx.experimental.proxy_tensor", "extract_val get_proxy_mode get_proxy_slot make_fx track_tensor"),
    *_names(_N, "torch.fx.experimental.proxy_tensor", "maybe_enable_thunkify"),
    _call(Feature.RETRACE, "torch.fx.experimental.proxy_tensor._extract_tensor_metadata", "result include_contiguity"),
    *_names(_N, "torch.fx.experimental.symbolic_shapes", "DimDynamic ShapeEnv StatelessSymbolicContext SYMPY_INTERP"),
    *_names(_N, "torch.fx.experimental.symbolic_shapes", "free_symbols free_unbacked_symbols statically_known_true"),
    *_names(_N, "torch.fx.experimental.sym_node", "SymNode"),
    *_names(_N, "torch.utils._pytree", "tree_flatten tree_unflatten tree_leaves"),
    *_names(_N, "torch.utils._sympy.functions", "FloorDiv Max Min Mod PythonMod"),
    *_names(_N, "torch.utils._sympy.printers", "PythonPrinter"),
    *_names(_N, "torch.utils._sympy.value_ranges", "ValueRanges bound_sympy"),
    # What compiles a part
    _call(Feature.INDUCTOR, "torch._inductor.compile_fx.compile_fx", "model_ example_inputs_ inner_compile config_patches"),
    _call(Feature.INDUCTOR, "torch._inductor.compile_fx.compile_fx_inner", "gm example_inputs"),
    *_names(Feature.INDUCTOR, "torch._inductor", "list_options"),
    *_names(_N, "torch._dynamo.backends.debugging", "aot_eager"),
    *_names(_N, "torch._dynamo.convert_frame", "compile_lock"),
    *_names(_N, "torch._dynamo.source", "ConstantSource TensorPropertySource is_constant_source"),
    *_names(_N, "torch._dynamo", "config"),
    *_names(Feature.PIECES, "torch._inductor.utils", "get_first_incompatible_cudagraph_node"),
    _call(Feature.OVERLAP, "torch._inductor.async_compile.AsyncCompile.wait", "self scope"),
    *_names(Feature.OVERLAP, "torch._inductor.async_compile", "maybe_warm_pool"),
    *_names(Feature.OVERLAP, "torch._inductor.runtime.runtime_utils", "triton_cache_dir"),
    _call(Feature.PARALLEL, "torch._inductor.compile_worker.subproc_pool.SubprocPool.submit", "self job_fn"),
    _call(Feature.TUNING, "torch._inductor.runtime.triton_heuristics.CachingAutotuner.bench", "self launcher"),
    _call(Feature.EARLY, "torch._inductor.codegen.triton.TritonKernel._filter_pdl", "self code"),
    _call(Feature.LOWERINGS, "torch._inductor.lowering.register_lowering", "aten_fn broadcast type_promotion_kind"),
    *_names(Feature.LOWERINGS, "torch._inductor.ir", "Scatter ComputedBuffer MutationLayoutSHOULDREMOVE"),
    *_names(Feature.LOWERINGS, "torch._inductor.ir", "ConcatKernel TensorBox"),
    *_names(Feature.LOWERINGS, "torch._inductor.virtualized", "V ops"),
    *_names(Feature.FALLBACK, "torch._dynamo", "lookup_backend"),
    # Dynamo, taught to guard on positions
    _call(_C, "torch._dynamo.convert_frame._compile", "code globals locals builtins closure compiler_fn one_graph"),
    _call(_C, "torch._dynamo.variables.TensorVariable.call_method", "self tx name args kwargs"),
    _call(_C, "torch._dynamo.variables.SymNodeVariable.call_method", "self tx name args kwargs"),
    _call(_C, "torch._dynamo.variables.ListVariable.call_method", "self tx name args kwargs"),
    _call(_C, "torch._dynamo.variables.builder.VariableBuilder.wrap_symint", "self value"),
    _call(_C, "torch._dynamo.variables.builder.VariableBuilder.wrap_symfloat", "self value"),
    _call(_C, "torch._dynamo.variables.builder.VariableBuilder.wrap_literal", "self value"),
    _call(_C, "torch._dynamo.variables.builder._automatic_dynamic", "e tx source static_shapes"),
    _call(_C, "torch._dynamo.variables.lists.iter_contains", "items search tx"),
    _call(_C, "torch._dynamo.symbolic_convert.InstructionTranslatorBase._format_value", "self fmt_spec flags"),
    _call(_C, "torch._dynamo.variables.BuiltinVariable.call_function", "self tx args kwargs"),
    _call(_C, "torch._dynamo.variables.torch.TorchInGraphFunctionVariable.call_function", "self tx args kwargs"),
    _call(_C, "torch._dynamo.variables.functions.WrapperUserFunctionVariable.call_function", "self tx args kwargs"),
    _call(_C, "torch._dynamo.output_graph.OutputGraph.create_proxy", "self args kwargs"),
    _call(_C, "torch.backends.opt_einsum.get_opt_einsum", "", why="sizes are asked before any operator is dispatched"),
    _call(_C, "torch.utils.swap_tensors", "t1 t2", why="it takes no tensor that somebody holds weakly"),
    _call(_C, "torch._dynamo.guards.GuardBuilder.get_guard_manager_from_source", "self source"),
    _call(_C, "torch._dynamo.optimize", "args kwargs"),
    _call(_C, "torch._dynamo.reset_code_state", "", why=_RESET),
    *_names(_C, "torch._dynamo.symbolic_convert", "InstructionTranslatorBase InstructionTranslator compare_op_handlers"),
    *_names(_C, "torch._dynamo.variables", "BuiltinVariable ConstantVariable ListVariable SymNodeVariable TensorVariable"),
    *_names(_C, "torch._dynamo.variables", "TupleVariable"),
    *_names(_C, "torch._dynamo.variables.base", "ValueMutationNew"),
    *_names(_C, "torch._dynamo.variables.lazy", "LazySymNodeFormatString LazyVariableTracker"),
    *_names(_C, "torch._dynamo.variables.builder", "VariableBuilder VariableBuilder._type_dispatch_impl wrap_fx_proxy"),
    *_names(_C, "torch._dynamo.output_graph", "OutputGraph"),
    *_names(_C, "torch._dynamo.guards", "GuardBuilder GuardManagerType"),
    _call(_C, "torch._dynamo.guards.install_guard", "guards skip"),
    _call(_C, "torch._dynamo.pgo.process_automatic_dynamic", "tx name entry"),
    _call(_C, "torch._dynamo.pgo.update_automatic_dynamic", "tx name entry"),
    *_names(_C, "torch._dynamo.pgo", "FrameStateSizeEntry auto_dynamic"),
    *_names(_C, "torch._dynamo.exc", "RestartAnalysis TensorifyScalarRestartAnalysis TorchDynamoException Unsupported"),
    *_names(_C, "torch._dynamo.exc", "InternalTorchDynamoError"),
    *_names(_C, "torch._dynamo.eval_frame", "skip_code"),
    *_names(_C, "torch._dynamo.resume_execution", "ContinueExecutionCache"),
    _call(_C, "torch._dynamo.output_graph.OutputGraph.compile_subgraph", "self tx reason stack_pops"),
    _call(_C, "torch._dynamo.convert_frame.has_tensor_in_frame", ""),
    *_names(_C, "torch", "_TorchCompileWrapper"),
    _call(Feature.ASKED, "torch._dynamo.utils.call_size", "x i", exact=True, why="graphs with symbols ask by it"),
    _call(Feature.ASKED, "torch._dynamo.utils.call_stride", "x i", exact=True, why="the same"),
    *_names(Feature.ASKED, "torch._C", "_is_torch_function_mode_enabled"),
    *_names(Feature.THREADS, "torch._C._dynamo.eval_frame", "_set_lru_cache"),
    # Torch's precompile cache
    _call(_P, "torch._dynamo.eval_frame._TorchDynamoContext.__call__", "self fn"),
    _call(_P, "torch._dynamo.package.CompilePackage.install", "self backends"),
    _call(_P, "torch._dynamo.package._lookup_code", "entry"),
    _call(_P, "torch._dynamo.output_graph.OutputGraph.install_global", "self prefix value", until="2.14"),
    _call(_P, "torch._dynamo.guards.GuardsStatePickler.reducer_override", "self obj"),
    _call(_P, "torch._dynamo.guards.pickle_guards_state", "state builder"),
    _call(_P, "torch._dynamo.guards.CheckFunctionManager.__init__", "self f_code output_graph"),
    *_names(_P, "torch._dynamo.bytecode_transformation", "unique_id"),
    *_names(_P, "torch._dynamo.precompile_context", "BackendCacheArtifact PrecompileContext"),
    *_names(_P, "torch._C._dynamo.eval_frame", "_reset_precompile_entries"),
    *_names(_P, "torch.fx._graph_pickler", "GraphPickler Options"),
    *_names(_P, "torch.utils._mode_utils", "no_dispatch"),
    _call(Feature.AGAIN, "torch._dynamo.convert_frame.get_and_maybe_log_recompilation_reasons", ""),
    # Counting what Dynamo and Inductor did
    *_names(Feature.MARKS, "torch._dynamo", "mark_static_address maybe_mark_dynamic"),
    *_names(Feature.COUNTING, "torch._dynamo", "register_backend"),
    *_names(Feature.COUNTING, "torch._dynamo.convert_frame", "register_bytecode_hook"),
    *_names(Feature.COUNTING, "torch._dynamo.utils", "counters get_compilation_metrics graph_break_reasons"),
    *_names(Feature.COUNTING, "torch._inductor", "cudagraph_trees"),
    *_names(Feature.COUNTING, "torch._inductor.cudagraph_utils", "cudagraphs_log"),
]

TABLE = {row.name: row for row in _ROWS}
