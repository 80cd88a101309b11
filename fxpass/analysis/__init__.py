"""What a graph does with positions: which symbols are such, where caches are sliced, and what is valid of what is read.

    kinds of symbols    kinds decides, from calls (what has moved) and steady_sizes (what the graph shows); capacities
    positions           positions, arithmetic; lengths and pure_sizes say of sizes and ints whether they are positions
    sites               sites, unsliced; growth finds what is made longer
    extents             extents, follow, resizing, and a rule for each operator in rules
    for the report      flow
"""
