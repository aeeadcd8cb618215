"""torchvision's classifiers, segmenters, detectors, video networks and optical flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tests.corpus.row import Input, Row, image, volume


def torchvision(name: str, family: str, size: int, *variants: str, **options: object) -> Row:
    """A torchvision network on one image; `options` go to its constructor."""
    return Row("torchvision", name, family, build(name, options), image(size), variants or ("ts17",))


def build(name: str, options: dict[str, object]) -> Callable[[], nn.Module]:
    def constructor() -> nn.Module:
        from torchvision.models import get_model

        return get_model(name, weights=None, **options)  # type: ignore[no-any-return]

    return constructor


CLASSIFIERS = (
    torchvision("resnet18", "resnet", 64, "ts17", "ts11-unfolded", "dynamo18", "dynamo20-dynsize", "ts13-dynbatch"),
    torchvision("alexnet", "alexnet", 224, "ts17", "dynamo18"),
    torchvision("vgg11_bn", "vgg", 224, "ts13-unfolded"),
    torchvision("squeezenet1_1", "squeezenet", 64, "ts17", "ts9", "dynamo18"),
    torchvision("densenet121", "densenet", 64, "ts13", "dynamo18-dynbatch"),
    torchvision("googlenet", "googlenet", 64, "ts17", "dynamo18", init_weights=False),
    torchvision("inception_v3", "inception_v3", 96, "ts17", init_weights=False),
    torchvision("mnasnet0_5", "mnasnet", 64, "ts17", "ts9-unfolded"),
    torchvision("mobilenet_v2", "mobilenet_v2", 64, "ts17", "ts9", "dynamo18"),
    torchvision("mobilenet_v3_small", "mobilenet_v3", 64, "ts17", "ts13-dynsize", "dynamo18"),
    torchvision(
        "shufflenet_v2_x0_5", "shufflenet_v2", 64, "ts17", "ts11", "ts13-dynbatch", "dynamo18", "dynamo18-dynsize"
    ),
    torchvision("shufflenet_v2_x1_0", "shufflenet_v2", 64, "ts13-unfolded"),
    torchvision("regnet_x_400mf", "regnet", 64, "ts17"),
    torchvision("regnet_y_400mf", "regnet", 64, "ts13", "dynamo18"),
    torchvision("efficientnet_b0", "efficientnet", 64, "ts17", "dynamo18"),
    torchvision("resnext50_32x4d", "resnext", 64, "ts17-unfolded"),
    torchvision("wide_resnet50_2", "wide_resnet", 64, "ts17"),
    torchvision("convnext_tiny", "convnext", 64, "ts17", "dynamo18"),
)

ATTENTION = (
    torchvision("vit_b_32", "vit", 64, "ts17", "dynamo18", "ts14-dynbatch", image_size=64),
    torchvision("swin_t", "swin", 64, "ts17", "dynamo18"),
    torchvision("swin_v2_t", "swinv2", 64, "ts17"),
    torchvision("maxvit_t", "maxvit", 224, "ts17", "dynamo18"),
)


class Picks(nn.Module):
    """Turns the dictionary that segmenters and detectors return into a tuple of tensors."""

    def __init__(self, model: nn.Module, *keys: str) -> None:
        super().__init__()
        self.model = model
        self.keys = keys

    def forward(self, x: Tensor) -> Any:
        outputs = self.model(x)
        return tuple(outputs[key] for key in self.keys)


class FirstImage(nn.Module):
    """Feeds a detector its list of one image and returns what it found, as a tuple."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return tuple(self.model([x[0]])[0].values())


class DetectorHeads(nn.Module):
    """A detector without its post-processing: backbone, pyramid and shared heads."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, x: Tensor) -> Any:
        return tuple(self.head(list(self.backbone(x).values())).values())


def segmenter(name: str, family: str, keys: tuple[str, ...], *variants: str) -> Row:
    constructor = build(
        name,
        {"weights_backbone": None, "aux_loss": "aux" in keys} if "lraspp" not in name else {"weights_backbone": None},
    )
    return Row("torchvision", name, family, lambda: Picks(constructor(), *keys), image(96), variants)


def detector(name: str, size: int, heads: bool, *variants: str) -> Row:
    """`heads` leaves the post-processing out."""
    options = {"weights_backbone": None, "min_size": size, "max_size": size}
    if "ssd" in name:
        options = {"weights_backbone": None}
    if "rcnn" in name:
        options |= {"box_score_thresh": 0.0, "num_classes": 4}  # random scores must not all be rejected
    constructor = build(name, options)
    wrap = DetectorHeads if heads else FirstImage
    inputs = (Input((1, 3, size, size), "NCHW", fixed="NC"),)
    suffix = "_heads" if heads else ""
    return Row(
        "torchvision", name + suffix, f"detector {name.split('_')[0]}", lambda: wrap(constructor()), inputs, variants
    )


def video(name: str, family: str, *variants: str) -> Row:
    inputs = volume((16, 224, 224) if name == "s3d" else (16, 64, 64), 3)
    return Row("torchvision", name, family, build(name, {}), inputs, variants)


SEGMENTERS = (
    segmenter("deeplabv3_mobilenet_v3_large", "deeplabv3", ("out",), "ts17", "ts13-dynsize", "dynamo18"),
    segmenter("deeplabv3_resnet50", "deeplabv3", ("out", "aux"), "ts17"),
    segmenter("fcn_resnet50", "fcn", ("out", "aux"), "ts17", "ts11-unfolded"),
    segmenter("lraspp_mobilenet_v3_large", "lraspp", ("out",), "ts17", "dynamo18-dynsize"),
)
DETECTORS = (
    detector("retinanet_resnet50_fpn", 128, True, "ts17", "dynamo18"),
    detector("retinanet_resnet50_fpn", 128, False, "ts17"),
    detector("fcos_resnet50_fpn", 128, True, "ts17"),
    detector("fcos_resnet50_fpn", 128, False, "ts17"),
    detector("ssd300_vgg16", 300, True, "ts17"),
    detector("ssd300_vgg16", 300, False, "ts13"),
    detector("ssdlite320_mobilenet_v3_large", 320, True, "ts17", "dynamo18"),
    detector("ssdlite320_mobilenet_v3_large", 320, False, "ts17"),
    detector("fasterrcnn_mobilenet_v3_large_320_fpn", 128, False, "ts17", "ts11-unfolded"),
    detector("fasterrcnn_resnet50_fpn", 128, False, "ts17"),
    detector("maskrcnn_resnet50_fpn", 128, False, "ts17"),
    detector("keypointrcnn_resnet50_fpn", 128, False, "ts17"),
)


def _flow_inputs() -> tuple[Input, ...]:
    return (Input((1, 3, 128, 128), "NCHW", "first"), Input((1, 3, 128, 128), "NCHW", "second"))


class LastFlow(nn.Module):
    """RAFT with three refinements; the last one is the answer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.model(first, second, num_flow_updates=3)[-1]  # type: ignore[no-any-return]


VIDEO_AND_FLOW = (
    video("r3d_18", "video resnet", "ts17", "dynamo18"),
    video("mc3_18", "video resnet", "ts13-dynbatch"),
    video("r2plus1d_18", "video resnet", "ts17-unfolded"),
    video("s3d", "s3d", "ts17"),
    video("swin3d_t", "video swin", "ts17"),
    Row(
        "torchvision",
        "raft_small",
        "raft",
        lambda: LastFlow(build("raft_small", {})()),
        _flow_inputs(),
        ("ts17", "dynamo20"),
    ),
)
