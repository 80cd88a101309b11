"""Dynamo's own names."""

from __future__ import annotations

from typing import Any

from fxpass.torch_internals.contracts import internal

Source: Any = internal("torch._guards.Source")
ChainedSource: Any = internal("torch._guards.ChainedSource")
config: Any = internal("torch._dynamo.config")
compile_lock: Any = internal("torch._dynamo.convert_frame.compile_lock")
ConstantSource: Any = internal("torch._dynamo.source.ConstantSource")
TensorPropertySource: Any = internal("torch._dynamo.source.TensorPropertySource")
is_constant_source: Any = internal("torch._dynamo.source.is_constant_source")
InstructionTranslatorBase: Any = internal("torch._dynamo.symbolic_convert.InstructionTranslatorBase")
InstructionTranslator: Any = internal("torch._dynamo.symbolic_convert.InstructionTranslator")
BuiltinVariable: Any = internal("torch._dynamo.variables.BuiltinVariable")
ConstantVariable: Any = internal("torch._dynamo.variables.ConstantVariable")
ListVariable: Any = internal("torch._dynamo.variables.ListVariable")
SymNodeVariable: Any = internal("torch._dynamo.variables.SymNodeVariable")
TensorVariable: Any = internal("torch._dynamo.variables.TensorVariable")
ValueMutationNew: Any = internal("torch._dynamo.variables.base.ValueMutationNew")
VariableBuilder: Any = internal("torch._dynamo.variables.builder.VariableBuilder")
wrap_fx_proxy: Any = internal("torch._dynamo.variables.builder.wrap_fx_proxy")
OutputGraph: Any = internal("torch._dynamo.output_graph.OutputGraph")
GuardBuilder: Any = internal("torch._dynamo.guards.GuardBuilder")
GuardManagerType: Any = internal("torch._dynamo.guards.GuardManagerType")
install_guard: Any = internal("torch._dynamo.guards.install_guard")
FrameStateSizeEntry: Any = internal("torch._dynamo.pgo.FrameStateSizeEntry")
auto_dynamic: Any = internal("torch._dynamo.pgo.auto_dynamic")
process_automatic_dynamic: Any = internal("torch._dynamo.pgo.process_automatic_dynamic")
update_automatic_dynamic: Any = internal("torch._dynamo.pgo.update_automatic_dynamic")
RestartAnalysis: Any = internal("torch._dynamo.exc.RestartAnalysis")
Unsupported: Any = internal("torch._dynamo.exc.Unsupported")
TensorifyScalarRestartAnalysis: Any = internal("torch._dynamo.exc.TensorifyScalarRestartAnalysis")
skip_code: Any = internal("torch._dynamo.eval_frame.skip_code")
TorchCompileWrapper: Any = internal("torch._TorchCompileWrapper")
register_backend: Any = internal("torch._dynamo.register_backend")
register_bytecode_hook: Any = internal("torch._dynamo.convert_frame.register_bytecode_hook")
counters: Any = internal("torch._dynamo.utils.counters")
get_compilation_metrics: Any = internal("torch._dynamo.utils.get_compilation_metrics")
CompileContext: Any = internal("torch._guards.CompileContext")
trace_structured: Any = internal("torch._logging.trace_structured")
