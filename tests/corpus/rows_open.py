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
    ("transformers", "bert"): (
        "dynamo20-dynsize",
        "ts11",
        "dynamo18-dynsize",
        "dynamo20-dynbatch",
    ),
    ("transformers", "gpt2"): (
        "ts14-dynsize",
        "dynamo18-dynsize",
    ),
    ("transformers", "distilbert"): (
        "ts14-dynsize",
        "dynamo18-dynsize",
    ),
    ("transformers", "roberta"): (
        "ts14-dynsize",
        "dynamo18-dynbatch",
        "dynamo18-dynsize",
    ),
    ("transformers", "t5_encoder"): ("dynamo18-dynsize",),
    ("transformers", "whisper_encoder"): ("dynamo18-dynbatch",),
    ("transformers", "segformer"): (
        "dynamo18-dynbatch",
        "dynamo18-dynsize",
    ),
    ("transformers", "llama"): (
        "ts17-dynsize",
        "dynamo23-dynbatch",
    ),
    ("transformers", "clip_vision"): ("ts14-dynbatch",),
    ("transformers", "wav2vec2"): (
        "ts17-dynsize",
        "dynamo18-dynbatch",
        "dynamo18-dynsize",
    ),
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
    ("monai", "unetr"): ("dynamo18",),
    ("pytorchcv", "bisenet_resnet18_celebamaskhq"): ("ts13-unfolded",),
    ("pytorchcv", "cgnet_cityscapes"): ("dynamo18",),
    ("pytorchcv", "espcnet_cityscapes"): ("dynamo18",),
    ("pytorchcv", "fpenet_cityscapes"): ("dynamo18",),
    ("pytorchcv", "lednet_cityscapes"): ("dynamo18",),
    ("pytorchcv", "nin_cifar10"): ("dynamo18",),
    ("pytorchcv", "sinet_cityscapes"): ("dynamo18",),
    ("pytorchcv", "xdensenet40_2_k24_bc_cifar10"): ("dynamo18",),
    ("smp", "dpt_tu-vit_tiny_patch16_224"): ("dynamo18",),
    ("timm", "caformer_s18"): ("dynamo18",),
    ("timm", "convnextv2_atto"): ("dynamo18-dynbatch",),
    ("timm", "rdnet_tiny"): ("dynamo18",),
    ("timm", "test_nfnet"): ("dynamo18-dynsize",),
    ("torchvision", "deeplabv3_resnet50"): ("dynamo18",),
    ("torchvision", "fcn_resnet50"): ("dynamo18-dynbatch",),
    ("torchvision", "fcos_resnet50_fpn_heads"): ("dynamo18",),
    ("torchvision", "googlenet"): ("ts11",),
    ("torchvision", "inception_v3"): ("dynamo18",),
    ("torchvision", "r2plus1d_18"): ("dynamo18",),
    ("torchvision", "s3d"): ("dynamo18",),
    ("torchvision", "swin_v2_t"): ("dynamo18",),
    ("transformers", "albert"): ("dynamo18-dynsize",),
    ("transformers", "bart"): (
        "dynamo18-dynsize",
        "ts17-dynsize",
    ),
    ("transformers", "bloom"): ("dynamo18-dynsize",),
    ("transformers", "clip_text"): (
        "dynamo18-dynsize",
        "ts14-dynsize",
    ),
    ("transformers", "deberta"): (
        "dynamo18-dynbatch",
        "ts17-dynsize",
    ),
    ("transformers", "dinov2"): ("dynamo18-dynbatch",),
    ("transformers", "falcon"): ("dynamo18-dynsize",),
    ("transformers", "gemma3"): (
        "dynamo18-dynsize",
        "ts17-dynsize",
    ),
    ("transformers", "gptneox"): ("dynamo18-dynsize",),
    ("transformers", "mistral"): ("dynamo18-dynsize",),
    ("transformers", "mobilebert"): ("dynamo18-dynbatch",),
    ("transformers", "modernbert"): ("dynamo18-dynsize",),
    ("transformers", "mpnet"): ("dynamo18-dynsize",),
    ("transformers", "opt"): (
        "dynamo18-dynsize",
        "ts17-dynsize",
    ),
    ("transformers", "phi3"): ("dynamo18-dynsize",),
    ("transformers", "qwen2"): (
        "dynamo18-dynsize",
        "ts17-dynsize",
    ),
    ("transformers", "qwen3"): (
        "dynamo18-dynbatch",
        "dynamo23",
    ),
    ("transformers", "swin_hf"): (
        "dynamo18-dynbatch",
        "ts17-dynbatch",
    ),
    ("transformers", "vit_hf"): (
        "dynamo18-dynbatch",
        "ts14-dynbatch",
    ),
    ("ultralytics", "yolov5n"): ("dynamo18-dynbatch",),
    ("ultralytics", "yolov6n"): ("dynamo18",),
    ("ultralytics", "yolov8n-obb"): ("dynamo18",),
    ("ultralytics", "yolov8n-pose"): ("dynamo18",),
}


def with_open(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows, with open, unoptimised and new variants appended to some of them."""
    return tuple(replace(row, variants=row.variants + OPEN.get((row.library, row.name), ())) for row in rows)
