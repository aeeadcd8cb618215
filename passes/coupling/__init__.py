"""What couple is made of: views of nodes, unification, zero-ness, names."""
