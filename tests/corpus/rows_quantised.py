"""Which networks of the other tables are also quantised or converted to float16, and how."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tests.corpus.row import Row

SPELLINGS = {
    "resnet18": (
        "qdq",
        "qdq-channel",
        "qdq-uint8",
        "qdq-weights",
        "qdq-fp8",
        "qdq-int16",
        "qoperator",
        "qoperator-channel",
        "dynamic8",
        "fp16",
        "fp16-inside",
    ),
    "mobilenet_v2": ("qdq-channel", "qoperator", "dynamic8", "fp16"),
    "shufflenet_v2_x0_5": ("qdq", "qoperator-channel", "fp16"),
    "densenet40_k12_cifar10": ("qdq", "qoperator"),
    "resnet20_cifar10": ("qdq-channel", "qoperator", "dynamic8"),
    "cspresnet50": ("qdq",),
    "efficientnet_b0": ("qdq-channel", "fp16"),
    "regnety_002": ("qdq-channel", "qoperator"),
    "convnext_atto": ("qdq", "fp16", "dynamic8"),
    "resnest14d": ("qdq",),
    "vit_tiny_patch16_224": ("qdq", "qdq-channel", "dynamic8", "dynamic8-channel", "qoperator", "int4-contrib", "fp16"),
    "bert": ("qdq", "dynamic8", "dynamic8-channel", "qoperator", "fp16"),
    "llama": ("dynamic8", "int4-contrib", "fp16"),
    "unet_resnet18": ("qdq-channel", "qoperator", "fp16"),
    "yolov8n": ("qdq-channel", "qoperator", "fp16-inside"),
    "lenet_flatten": ("qdq", "qdq-channel", "qoperator", "dynamic8", "fp16"),
    "unet_transposed": ("qdq", "qdq-channel"),
    "lstm": ("dynamic8", "fp16"),
    "resnet20_pad": ("qdq-channel", "qoperator"),
    "grouped_shuffle": ("qdq-channel", "qoperator-channel", "fp16"),
    "srresnet": ("qdq", "qoperator"),
    "autoencoder_kl": ("qdq", "fp16"),
    "wavenet": ("qdq", "fp16"),
}
DYNAMO = {
    "resnet18": ("qdq-channel", "fp16"),
    "vit_tiny_patch16_224": ("qdq", "fp16"),
    "llama": ("int4-contrib", "fp16"),
}
NEWEST = {"vit_tiny_patch16_224": ("int4",), "llama": ("int4",), "resnet18": ("qdq-fp8",)}


def with_quantised(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows, with quantised variants appended to some of them."""
    return tuple(replace(row, variants=row.variants + _quantised(row)) for row in rows)


def _quantised(row: Row) -> tuple[str, ...]:
    if (row.library, row.name) == ("timm", "resnet18"):  # torchvision's is enough
        return ()
    return (
        *(f"ts17+{after}" for after in SPELLINGS.get(row.name, ())),
        *(f"dynamo18+{after}" for after in DYNAMO.get(row.name, ())),
        *(f"dynamo21+{after}" for after in NEWEST.get(row.name, ())),
    )
