"""Random cache programs, run compiled beside eager: ``python -m tests.fuzz --seed 17 --programs 300``.

choices     a named choice at a time, from a seed: what shrinking works on
program     the grammar put together: source text of a cache, a step, and how it is driven
structures  what serving code keeps beside a cache
driver      a program's calls on both sides, everything compared after each
record      what was run, added up in a file
shrink      the smallest program that still fails in the same way
mutants     kvfix broken on purpose, rule by rule: the programs must tell
"""
