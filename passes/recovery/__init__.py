"""What recover and the data-aware scores are made of: windows, Gram matrices, targets, elimination."""
