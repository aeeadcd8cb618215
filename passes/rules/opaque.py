"""Operators whose every axis stays, and why. One line each: a deliberate pin, not a gap."""

from __future__ import annotations

from passes.rules.language import Facts, Op, Pin, rule

REASONS = {
    "its body sees it": ("If", "Scan", "SequenceMap"),
    "it becomes part of a sequence": (
        "SequenceEmpty", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength",
        "SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement",
    ),
    "random numbers are drawn for it": (
        "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial",
    ),
    "its size is read as a number": ("Shape", "Size", "Range", "EyeLike", "AffineGrid"),
    "its entries are classes": ("OneHot", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", "TfIdfVectorizer"),
    "which entries remain depends on their values": ("NonZero", "Unique", "NonMaxSuppression"),
    "positions across all channels point into it": ("MaxUnpool",),
    "it is transformed to frequencies": (
        "DFT", "STFT", "MelWeightMatrix", "HannWindow", "HammingWindow", "BlackmanWindow",
    ),
    "it holds no numbers": (
        "StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "ImageDecoder",
    ),
    "it is divided by its deviation, which is not finite where all is zero": ("MeanVarianceNormalization",),
    "its value is a constant": ("Constant",),
}  # fmt: skip


def _opaque(reason: str, *types: str) -> None:
    @rule(*types)
    def pins(op: Op) -> Facts:
        for operand in (*op.inputs, *op.outputs):
            for axis in operand.axes if operand is not None else ():
                yield Pin(axis, f"{reason} ({op.type})")


for _reason, _types in REASONS.items():
    _opaque(_reason, *_types)
