"""Outputs of a Sigmoid: where it is nearly 0, what is left of a number is rounding.

onnxruntime adds ½ to a fraction, so that its results are multiples of 3e-8 whatever their size. A detector that sees
nothing gives 1e-7 everywhere: a third of that is no difference. What the Sigmoid reads tells as much, and there too.
"""

from __future__ import annotations

import onnx

PLAIN = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity")


def squashed(original: onnx.ModelProto, slim: onnx.ModelProto) -> dict[str, str]:
    """Output → what its Sigmoid reads, where both models compute that under the same name."""
    makers, others = ({name: node for node in model.graph.node for name in node.output} for model in (original, slim))
    found: dict[str, str] = {}
    for output in original.graph.output:
        node = makers.get(output.name)
        while node is not None and node.op_type in PLAIN:
            node = makers.get(node.input[0])
        if node is not None and node.op_type == "Sigmoid" and not node.domain:
            operand = node.input[0]
            if operand in makers and operand in others:
                found[output.name] = operand
    return found
