"""What an engine says about itself: its layers, the ONNX nodes in each, and the precision they really have.

Reads the JSON of `EngineInspector.get_engine_information` at DETAILED verbosity. The spelling of a tensor's
type differs between versions ("Row major linear FP16 format", "Half"), so types are recognised by word.

Source: NVIDIA TensorRT documentation, "Engine Inspector".
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from halpc.errors import BackendError

_WORDS = (
    ("bf16", re.compile(r"BF16|BFloat16", re.I)),
    ("fp16", re.compile(r"(?<!B)FP16|Half", re.I)),
    ("fp8", re.compile(r"FP8|Float8|E4M3", re.I)),
    ("int8", re.compile(r"\bInt8|\bINT8")),
    ("fp32", re.compile(r"FP32|\bFloat\b|Float32", re.I)),
)
_NODE = re.compile(r"\[ONNX Layer: (.*?)\]")
_COMPUTES = re.compile(r"conv|gemm|matrix|myelin|fully|mha|attention|kgen|xmma", re.I)
COPIES = ("Reformatting CopyNode", "reformat", "copy")


def layers_of(information: str) -> list[dict[str, Any]]:
    """The layers of the engine, as the inspector lists them; names only become `{"Name": …}`."""
    if not information.strip():
        return []
    entries = json.loads(information, strict=False).get("Layers", [])  # names may hold control characters
    return [entry if isinstance(entry, dict) else {"Name": str(entry)} for entry in entries]


def nodes_of(layer: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the ONNX nodes that were fused into a layer; empty where the engine does not tell."""
    return tuple(dict.fromkeys(_NODE.findall(str(layer.get("Metadata", "")))))


def spelled(layer: Mapping[str, Any]) -> str:
    """A layer's name and the ONNX nodes in it, as one text."""
    return " ".join((str(layer.get("Name", "")), *(f"[{name}]" for name in nodes_of(layer))))


def outputs_of(layer: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the tensors a layer produces."""
    return tuple(str(tensor.get("Name", "")) for tensor in layer.get("Outputs", ()) if isinstance(tensor, dict))


def is_copy(layer: Mapping[str, Any]) -> bool:
    """Whether a layer only moves data: a reformat between layouts or types."""
    kind = str(layer.get("LayerType", ""))
    return kind.lower() in ("reformat", "noop") or str(layer.get("Name", "")).startswith(COPIES[0])


def precision_of(layer: Mapping[str, Any]) -> str | None:
    """The precision a layer computes in: that of its weights, else of its first input; None if unknown."""
    for text in _types(layer):
        for name, word in _WORDS:
            if word.search(text):
                return name
    return None


def _types(layer: Mapping[str, Any]) -> Iterator[str]:
    weights = layer.get("Weights")
    if isinstance(weights, dict):
        yield str(weights.get("Type", ""))
    for tensor in (*layer.get("Inputs", ()), *layer.get("Outputs", ())):
        if isinstance(tensor, dict):
            yield " ".join(str(tensor.get(key, "")) for key in ("Format/Datatype", "Datatype", "Format"))


def precisions(layers: list[dict[str, Any]]) -> dict[str, int]:
    """How many computing layers (convolutions, matrix products, fused regions) have each precision."""
    computing = [layer for layer in layers if not is_copy(layer) and _COMPUTES.search(_kind(layer))]
    found = Counter(precision_of(layer) or "unknown" for layer in computing)
    return dict(sorted(found.items()))


def _kind(layer: Mapping[str, Any]) -> str:
    return " ".join(str(layer.get(key, "")) for key in ("LayerType", "ParameterType", "TacticName"))


def check_precision(wanted: str, found: Mapping[str, int], name: str) -> str:
    """A sentence on the engine's real precision.

    Raises:
        BackendError: every computing layer tells its precision, and none has the one that was asked for.
    """
    known = {precision: count for precision, count in found.items() if precision != "unknown"}
    if not known:
        return "layers do not tell their precision"
    spelled = ", ".join(f"{count} {precision}" for precision, count in found.items())
    expected = "fp32" if wanted == "tf32" else wanted
    if expected not in known:
        if known != found:
            return f"computing layers by precision, as far as they tell: {spelled}"
        raise BackendError(
            f"{name} was to be {wanted}, but none of its computing layers is: they are {spelled}. A "
            "strongly typed network goes by the graph's types; check its casts and Q/DQ nodes."
        )
    return f"computing layers by precision: {spelled}"
