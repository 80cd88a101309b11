"""The boundary: what kvfix uses of torch that is not public, and what it replaces there.

    the table           contracts, of names that lookup finds; attributes; features says what this torch can carry
    replacing           patches lets a hook run before a function of torch; install puts all hooks in place, and takes them out
    names, by subject   fakes, operators, proxies, symbols, and `names` in each folder
    Dynamo              dynamo; lookup_order is that of the graphs which Dynamo keeps of a function
    around it           checkpoints and retrace for its symbols, garbage_collection while it compiles
    behind it           inductor, precompile
"""
