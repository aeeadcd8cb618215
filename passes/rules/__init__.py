"""What halpc knows of each ONNX operator: one small function per operator, one file per family.

To add an operator: write its function in the family's file (or a new file, listed here) and its row in
`tests/passes/rules/`. Importing this package fills the table that `rule_for` looks into.
"""

from passes.rules import (  # noqa: F401  (imported to fill the table)
    attention,
    convolution,
    elementwise,
    indexing,
    loops,
    matrix,
    normalisation,
    opaque,
    pooling,
    qlinear,
    quantised,
    recurrent,
    reduction,
    shaping,
    spatial,
)
from passes.rules.language import rule_for, rules

__all__ = ["rule_for", "rules"]
