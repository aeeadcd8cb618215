"""Which networks of the other tables are also exported with open axes, unoptimised, or at the newest opsets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tests.corpus.row import Row

OPEN = {
    ("torchvision", "mobilenet_v2"): ("dynamo18-dynbatch", "dynamo20-dynsize"),
    ("torchvision", "regnet_y_400mf"): ("dynamo18-dynbatch",),
    ("torchvision", "resnet18"): ("dynamo18-unfolded", "dynamo24"),
    ("torchvision", "swin_t"): ("dynamo20-dynbatch",),
    ("timm", "efficientnet_b0"): ("dynamo20-dynsize", "dynamo18-unfolded"),
    ("timm", "convnext_atto"): ("dynamo18-dynbatch", "ts17-dynsize", "dynamo24"),
    ("timm", "hrnet_w18_small"): ("dynamo18-dynbatch",),
    ("timm", "dpn68"): ("dynamo18-dynbatch", "ts9"),
    ("timm", "ghostnet_100"): ("dynamo18-dynbatch", "ts17-unfolded"),
    ("timm", "resnest14d"): ("dynamo20-dynbatch", "ts11-unfolded"),
    ("timm", "edgenext_xx_small"): ("dynamo18-dynbatch",),
    ("timm", "levit_128s"): ("dynamo18-dynbatch", "dynamo18-unfolded"),
    ("timm", "swin_tiny_patch4_window7_224"): ("dynamo18-dynbatch", "ts17-dynbatch"),
    ("timm", "vit_tiny_patch16_224"): ("ts11", "dynamo24"),
    ("timm", "mobilevit_xxs"): ("dynamo18-dynbatch", "ts17-dynbatch"),
    ("timm", "repvit_m0_9"): ("dynamo18-dynbatch",),
    ("timm", "coat_tiny"): ("dynamo18-dynbatch",),
    ("pytorchcv", "shufflenet_g3_wd4"): ("dynamo18-dynbatch", "ts9-unfolded"),
    ("pytorchcv", "densenet40_k12_cifar10"): ("dynamo18-dynbatch", "ts11-unfolded"),
    ("pytorchcv", "peleenet"): ("ts13-dynbatch",),
    ("pytorchcv", "hardnet39ds"): ("dynamo20-dynsize", "ts9-unfolded"),
    ("smp", "unet_resnet18"): ("dynamo18-dynsize",),
    ("smp", "fpn_resnet18"): ("dynamo18-dynsize", "ts17-dynsize"),
    ("smp", "segformer_mit_b0"): ("dynamo18-dynbatch", "ts17-dynsize"),
    ("smp", "pspnet_resnet18"): ("dynamo18-dynbatch",),
    ("ultralytics", "yolov8n"): ("dynamo18-dynbatch", "ts17-dynsize"),
    ("ultralytics", "yolo11n"): ("dynamo18-dynbatch", "ts17-unfolded"),
    ("ultralytics", "yolo12n"): ("ts17-dynbatch",),
    ("ultralytics", "yolo26n"): ("ts17-dynsize",),
    ("transformers", "bert"): ("dynamo20-dynsize", "ts11"),
    ("transformers", "gpt2"): ("ts14-dynsize",),
    ("transformers", "distilbert"): ("ts14-dynsize",),
    ("transformers", "roberta"): ("ts14-dynsize", "dynamo18-dynbatch"),
    ("transformers", "t5_encoder"): ("dynamo18-dynsize",),
    ("transformers", "whisper_encoder"): ("dynamo18-dynbatch",),
    ("transformers", "segformer"): ("dynamo18-dynbatch",),
    ("transformers", "llama"): ("ts17-dynsize",),
    ("transformers", "clip_vision"): ("ts14-dynbatch",),
    ("transformers", "wav2vec2"): ("ts17-dynsize",),
    ("monai", "unet"): ("dynamo18-dynsize", "ts17-unfolded"),
    ("monai", "dynunet"): ("dynamo18-dynbatch", "ts17-dynsize"),
    ("monai", "attentionunet"): ("ts17-dynsize",),
    ("monai", "segresnet"): ("ts17-dynsize",),
    ("diffusers", "autoencoder_kl"): ("dynamo18-dynbatch", "ts17-unfolded"),
    ("diffusers", "unet2d_condition"): ("dynamo18-dynbatch", "ts17-dynsize"),
    ("diffusers", "unet2d"): ("dynamo18-dynsize",),
    ("diffusers", "sd3"): ("ts17-dynbatch",),
    ("handmade", "resnet20_pad"): ("dynamo18-dynbatch",),
    ("handmade", "einsum_attention"): ("dynamo20-dynsize",),
    ("handmade", "pointnet"): ("dynamo18-dynsize",),
}


def with_open(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows, with open, unoptimised and new variants appended to some of them."""
    return tuple(replace(row, variants=row.variants + OPEN.get((row.library, row.name), ())) for row in rows)
