"""Recipe of the networks in models/: render fonts, train, score channels, export to ONNX."""
