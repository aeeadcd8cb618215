"""Multiply-accumulates of one node, by operator, and which operators without a formula may cost some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import onnx_graphsurgeon as gs

from halpc.ir.dims import Dim
from passes.counting.attention import grouped, projecting, separate
from passes.counting.sizes import Sizes, Volume
from passes.rules import rule_for

Formula: TypeAlias = Callable[[gs.Node, Sizes], list[Volume]]

STANDARD = ("", "ai.onnx")
KNOWN = (*STANDARD, "com.microsoft", "com.microsoft.nchwc")
TRANSPOSABLE = ("Gemm", "QGemm", "FusedMatMul", "FusedGemm")


def formula_of(node: gs.Node) -> Formula | None:
    """The operator's formula, or None where it has none."""
    domain = node.domain or ""
    if domain not in KNOWN:
        return None
    return _PACKED.get(node.op) if domain == "com.microsoft" and node.op in _PACKED else _FORMULAS.get(node.op)


def may_cost(node: gs.Node) -> bool:
    """Whether an operator without a formula may multiply and accumulate: halpc has no rule for it, or knows that."""
    domain = node.domain or ""
    if node.op in COSTLY or domain not in (*KNOWN, "ai.onnx.ml"):
        return True
    return rule_for(domain, node.op) is None and node.op not in FREE and domain != "ai.onnx.ml"


def label(node: gs.Node) -> str:
    """The operator with its domain."""
    return f"{node.domain}::{node.op}" if (node.domain or "") not in STANDARD else str(node.op)


def _convolution(node: gs.Node, sizes: Sizes) -> list[Volume]:
    weight, y = node.inputs[3 if node.op == "QLinearConv" else 1], node.outputs[0]
    last = node.op.startswith("Nhwc") or node.attrs.get("channels_last", 0)
    return [_at_every_place(node, sizes, y, len(sizes.shape(y)) - 1 if last else 1, weight)]


def _transposed_convolution(node: gs.Node, sizes: Sizes) -> list[Volume]:
    return [_at_every_place(node, sizes, node.inputs[0], 1, node.inputs[1])]


def _at_every_place(node: gs.Node, sizes: Sizes, tensor: gs.Tensor, channels: int, weight: gs.Tensor) -> Volume:
    """The weight's entries, once per position of a tensor; channels may have been moved into its other axes."""
    places = [i for i in range(len(sizes.shape(tensor))) if i != channels]
    return Volume(node.name, 1.0, (*sizes.volume("", 1.0, tensor, places).axes, *sizes.volume("", 1.0, weight).axes))


def _product(node: gs.Node, sizes: Sizes) -> list[Volume]:
    a, y = node.inputs[0], node.outputs[0]
    rows = node.op in TRANSPOSABLE and node.attrs.get("transA", 0)
    inner = len(sizes.shape(a)) - (2 if rows else 1)
    return [Volume(node.name, 1.0, (*sizes.volume(node.name, 1.0, y).axes, sizes.axis(a, inner)))]


def _recurrence(node: gs.Node, sizes: Sizes) -> list[Volume]:
    steps = sizes.volume("", 1.0, node.inputs[0], (0, 1)).axes
    return [Volume(node.name, 1.0, (*steps, *sizes.volume("", 1.0, tensor).axes)) for tensor in node.inputs[1:3]]


def _contraction(node: gs.Node, sizes: Sizes) -> list[Volume]:
    """An Einsum: one axis per letter; those of an ellipsis are the result's."""
    terms, _, result = str(node.attrs["equation"]).replace(" ", "").partition("->")
    y = node.outputs[0]
    letters: dict[str, Dim] = {}
    for tensor, term in [*zip(node.inputs, terms.split(","), strict=True), (y, result)]:
        for letter, index in _places(term, len(sizes.shape(tensor))):
            letters.setdefault(letter, sizes.axis(tensor, index))
    rank = len(sizes.shape(y))
    named = {index for _, index in _places(result, rank)}
    unnamed = [sizes.axis(y, i) for i in range(rank) if "..." in result and i not in named]
    return [Volume(node.name, 1.0, (*letters.values(), *unnamed))]


def _places(term: str, rank: int) -> list[tuple[str, int]]:
    """Letters of an Einsum's term and the axes they stand for."""
    before, _, after = term.partition("...")
    return [(c, i) for i, c in enumerate(before)] + [(c, rank - len(after) + i) for i, c in enumerate(after)]


_BY_FORMULA: Mapping[Formula, tuple[str, ...]] = {
    _convolution: ("Conv", "ConvInteger", "QLinearConv", "FusedConv", "DeformConv", "NhwcConv", "NhwcFusedConv"),
    _transposed_convolution: ("ConvTranspose", "ConvTransposeWithDynamicPads"),
    _product: (
        "MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "FusedGemm", "QGemm", "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul", "MatMulNBits",
    ),
    _recurrence: ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"),
    _contraction: ("Einsum",),
    separate: ("Attention", "MultiHeadAttention"),
    grouped: ("GroupQueryAttention",),
    projecting: ("QAttention",),
}  # fmt: skip
_FORMULAS = {op: formula for formula, ops in _BY_FORMULA.items() for op in ops}
_PACKED: Mapping[str, Formula] = {"Attention": projecting}
COSTLY = ("DFT", "STFT", "LinearClassifier", "LinearRegressor", "SVMClassifier", "SVMRegressor")
FREE = (
    "BiasAdd", "BiasDropout", "BiasSoftmax", "BiasSplitGelu", "BifurcationDetector", "BitmaskBiasDropout",
    "BitmaskDropout", "ComplexMul", "ComplexMulConj", "CropAndResize", "DequantizeBFP", "DequantizeLinear",
    "DequantizeWithOrder", "EmbedLayerNormalization", "ExpandDims", "GatedAdd", "GatherBlockQuantized", "GatherND",
    "GatherPacked", "GridSample", "GroupNorm", "IsAllFinite", "MaxpoolWithMask", "MulInteger", "MurmurHash3",
    "NGramRepeatBlock", "NhwcMaxPool", "Pad", "QEmbedLayerNormalization", "QLinearAveragePool", "QLinearConcat",
    "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax",
    "QLinearWhere", "QuantizeBFP", "QuantizeLinear", "QuantizeWithOrder", "Range", "ReduceSumInteger",
    "RemovePadding", "ReorderInput", "ReorderOutput", "RestorePadding", "ScaledSiLU", "SkipGroupNorm", "SwiGLU",
    "Tokenizer", "Trilu", "Unique", "Affine", "Crop", "DynamicSlice", "ImageScaler", "ParametricSoftplus", "Scale",
    "ScaledTanh", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "Upsample",
)  # fmt: skip
"""Operators of onnxruntime that halpc has no rule for and that multiply and accumulate nothing to speak of."""
