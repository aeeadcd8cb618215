"""A corpus of real exports: many architectures, two exporters, random weights, small inputs.

`python -m tests.corpus.export --out DIR` writes it. `rows_*.py` are the tables; a row names a
network, how to build it, what it eats, and in which variants it is exported.
"""
