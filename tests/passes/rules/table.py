"""The rows of all families."""

from __future__ import annotations

from tests.passes.rules import rows_entrywise, rows_layers, rows_moving, rows_positions, rows_products, rows_quantised

ROWS = [
    *rows_entrywise.ROWS,
    *rows_layers.ROWS,
    *rows_moving.ROWS,
    *rows_positions.ROWS,
    *rows_products.ROWS,
    *rows_quantised.ROWS,
]
