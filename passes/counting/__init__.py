"""What a node costs in multiply-accumulates: formulas by operator, and bodies of control flow."""
