"""What load is made of: folding, literal shapes, the static twin."""
