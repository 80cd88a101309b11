"""A host model of small integer tensors: what each element holds, and what a graph makes of it.

    in a graph          table, by rules for ops: indexing moves entries, arithmetic and reductions compute them; operators finds
                        the rule of an op, small_tensors says which tensors are followed
    entries             contents, arrays, functions; formula evaluates them on the host
    without a rule      expressions, of the ops that repeatable_ops allows
    between calls       mirror, advance, history; address_ranges for tensors that share memory
"""
