"""What runs around the backend: the command line, comparisons, models of other packages.

    the command line    command_line, arguments, output; target finds what it is to run, running runs it
    print, explain      print_explain
    demo, bench         compare, counting, watched_calls; figures are written to files
    reach               reach, reach_rows
    stock               what stock makes of the same calls
"""
