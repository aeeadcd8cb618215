"""segmentation_models_pytorch on light encoders, MONAI's volumetric networks, Ultralytics' YOLO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tests.corpus.row import Input, Row, image, volume


def segmenter(name: str, encoder: str, *variants: str, size: int = 64, **options: Any) -> Row:
    """A segmentation_models_pytorch architecture on one of its encoders, without weights."""

    def build() -> nn.Module:
        import segmentation_models_pytorch

        constructor = getattr(segmentation_models_pytorch, name)
        return constructor(encoder_name=encoder, encoder_weights=None, classes=4, **options)  # type: ignore[no-any-return]

    return Row("smp", f"{name.lower()}_{encoder}", name.lower(), build, image(size), variants or ("ts17",))


SMP = (
    segmenter("Unet", "resnet18", "ts17", "dynamo18", "ts13-dynsize", "ts11-unfolded"),
    segmenter("Unet", "mobilenet_v2"),
    segmenter("Unet", "timm-efficientnet-b0", decoder_attention_type="scse"),
    segmenter("UnetPlusPlus", "resnet18", "ts17", "dynamo18"),
    segmenter("FPN", "resnet18", "ts17", "dynamo18", "ts11"),
    segmenter("FPN", "densenet121"),
    segmenter("PSPNet", "resnet18", "ts17", "dynamo18", size=192),
    segmenter("DeepLabV3", "resnet18", "ts13"),
    segmenter("DeepLabV3Plus", "resnet18", "ts17", "dynamo18-dynbatch"),
    segmenter("Linknet", "resnet18", "ts17", "ts13-unfolded"),
    segmenter("MAnet", "resnet18", "ts17", "dynamo18"),
    segmenter("PAN", "resnet18", "ts17", size=128),
    segmenter("UPerNet", "resnet18", "ts17", "dynamo18", size=192),
    segmenter("Segformer", "mit_b0", "ts17", "dynamo18"),
    segmenter("DPT", "tu-vit_tiny_patch16_224", "ts17", size=224),
)


class Tensors(nn.Module):
    """Keeps the tensors of an output that also holds other things."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        output = self.model(x)
        return output[0] if isinstance(output, (tuple, list)) else output


def volumetric(name: str, options: dict[str, Any], inputs: tuple[Input, ...], *variants: str, suffix: str = "") -> Row:
    """A MONAI network by class name."""

    def build() -> nn.Module:
        from monai.networks import nets

        return Tensors(getattr(nets, name)(**options))

    return Row(
        "monai",
        name.lower() + suffix,
        f"{name.lower()} {inputs[0].axes.count('H') + 1}-d",
        build,
        inputs,
        variants or ("ts17",),
    )


CUBE = volume((32, 32, 32), 1)
CHANNELS = {"channels": (8, 16, 32, 64), "strides": (2, 2, 2)}
ANY = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3}
DYN = ANY | {
    "kernel_size": [3] * 4,
    "strides": [1, 2, 2, 2],
    "upsample_kernel_size": [2, 2, 2],
    "filters": [8, 16, 32, 64],
}
MONAI = (
    volumetric("UNet", ANY | CHANNELS | {"num_res_units": 2}, CUBE, "ts17", "dynamo18", "ts13-dynbatch"),
    volumetric("UNet", ANY | CHANNELS | {"norm": "batch"}, CUBE, "ts17-unfolded", suffix="_batchnorm"),
    volumetric("BasicUNet", ANY | {"features": (8, 8, 16, 32, 64, 8)}, CUBE, "ts17", "dynamo18"),
    volumetric("BasicUNetPlusPlus", ANY | {"features": (8, 8, 16, 32, 64, 8)}, CUBE),
    volumetric("SegResNet", ANY | {"init_filters": 8}, CUBE, "ts17", "dynamo18", "dynamo21"),
    volumetric("VNet", ANY, CUBE, "ts17"),
    volumetric("DynUNet", DYN, CUBE, "ts17", "dynamo18"),
    volumetric("DynUNet", DYN | {"res_block": True}, CUBE, suffix="_res"),
    volumetric("AttentionUnet", ANY | CHANNELS, CUBE, "ts17", "dynamo18"),
    volumetric("HighResNet", ANY, CUBE),
    volumetric(
        "UNETR",
        {
            "in_channels": 1,
            "out_channels": 3,
            "img_size": 32,
            "feature_size": 8,
            "hidden_size": 64,
            "mlp_dim": 128,
            "num_heads": 4,
        },
        CUBE,
    ),
    volumetric("SwinUNETR", {"in_channels": 1, "out_channels": 3, "feature_size": 12}, volume((64, 64, 64), 1)),
    volumetric("DenseNet121", ANY, CUBE),
    volumetric(
        "ResNet",
        {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [8, 16, 32, 64], "n_input_channels": 1},
        CUBE,
    ),
    volumetric("MedNeXt", ANY | {"init_filters": 8}, CUBE),
    volumetric("AutoEncoder", ANY | {"channels": (8, 16, 32), "strides": (2, 2, 2)}, CUBE),
    volumetric(
        "FlexibleUNet",
        {"in_channels": 3, "out_channels": 2, "backbone": "efficientnet-b0", "pretrained": False},
        image(64),
    ),
    volumetric(
        "UNet",
        ANY | CHANNELS | {"spatial_dims": 2, "act": "prelu"},
        image(64, channels=1),
        "ts13-dynsize",
        suffix="_2d",
    ),
    volumetric("HoVerNet", {}, image(256), "ts17"),
)


def yolo(name: str, size: int, *variants: str) -> Row:
    """An Ultralytics model from its YAML; `n` scale."""

    def build() -> nn.Module:
        return _yolo(name)

    return Row(
        "ultralytics",
        name,
        "yolo " + name.partition("-")[2] if "-" in name else "yolo",
        build,
        image(size),
        variants or ("ts17",),
    )


def _yolo(name: str) -> nn.Module:
    from ultralytics.nn import tasks

    kind = name.partition("-")[2].rstrip("0123456789") or "detect"
    constructor: Callable[..., Any] = {
        "cls": tasks.ClassificationModel,
        "seg": tasks.SegmentationModel,
        "pose": tasks.PoseModel,
        "obb": tasks.OBBModel,
    }.get(kind, tasks.RTDETRDetectionModel if "rtdetr" in name else tasks.DetectionModel)
    model = constructor(f"{name}.yaml", verbose=False)
    for module in model.modules():
        if hasattr(module, "export"):
            module.export, module.format = True, "onnx"
    return Tensors(model)


YOLO = (
    yolo("yolov8n", 64, "ts17", "dynamo18", "ts12-dynbatch", "ts17-unfolded"),
    yolo("yolov8n-cls", 64, "ts17", "dynamo18"),
    yolo("yolov8n-seg", 64),
    yolo("yolov8n-pose", 64),
    yolo("yolov8n-obb", 64),
    yolo("yolov5n", 64, "ts17", "ts11-unfolded"),
    yolo("yolov5n-p6", 64),
    yolo("yolov3-tiny", 64, "ts13"),
    yolo("yolov6n", 64),
    yolo("yolov8n-ghost", 64),
    yolo("yolov9t", 64, "ts17", "dynamo18"),
    yolo("yolov10n", 64, "ts17"),
    yolo("yolo11n", 64, "ts17", "dynamo18", "ts13-dynsize"),
    yolo("yolo11n-cls", 64),
    yolo("yolo11n-seg", 64),
    yolo("yolo12n", 64, "ts17", "dynamo18"),
    yolo("yolo26n", 64, "ts17", "dynamo18"),
    yolo("rtdetr-l", 64, "ts17"),
)
