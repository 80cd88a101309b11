"""The dialect of graphs that all passes speak.

    into the dialect    normal_form, replay, decompose, stepped_slices, attributes; unfit says which graphs stay out
    inputs and lines    inputs, source_lines: where an input comes from, and which line of the user's a node was made of
    memory              aliases, memory_addresses, layouts
    numbers             numbers, bounds, fixed_places, expression_texts
    nodes               schemas, values, heavy_ops, arguments: what an op declares, gives, costs and takes
    edits               insertion, marks, propagate, extract; postconditions checks them
"""
