"""More Hugging Face transformers that see whole images, alone or beside text."""

from __future__ import annotations

from tests.corpus.row import tokens
from tests.corpus.rows_transformers import TEXT, WORDS, transformer
from tests.corpus.rows_transformers_senses import PIXELS, VISION

RESNET = {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1]}
VISIONARY = (
    transformer("resnet_hf", "ResNetForImageClassification", RESNET | {"layer_type": "basic"}, PIXELS, "dynamo18"),
    transformer(
        "convnext_hf",
        "ConvNextForImageClassification",
        {"hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1]},
        PIXELS,
        "dynamo18",
        "ts17-dynbatch",
    ),
    transformer(
        "convnextv2_hf",
        "ConvNextV2ForImageClassification",
        {"hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1]},
        PIXELS,
        "ts17",
    ),
    transformer(
        "regnet_hf",
        "RegNetForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1], "groups_width": 8},
        PIXELS,
        "dynamo18",
    ),
    transformer(
        "mobilenetv1_hf", "MobileNetV1ForImageClassification", {"depth_multiplier": 0.25}, PIXELS, "dynamo18", "ts17"
    ),
    transformer("mobilenetv2_hf", "MobileNetV2ForImageClassification", {"depth_multiplier": 0.35}, PIXELS, "dynamo18"),
    transformer("efficientnet_hf", "EfficientNetForImageClassification", {"image_size": 64}, PIXELS, "ts17"),
    transformer(
        "levit_hf",
        "LevitForImageClassification",
        {
            "image_size": 64,
            "hidden_sizes": [32, 48, 64],
            "num_attention_heads": [2, 3, 4],
            "key_dim": [8, 8, 8],
            "depths": [1, 1, 1],
        },
        PIXELS,
        "ts17",
        "dynamo18",
    ),
    transformer(
        "focalnet_hf",
        "FocalNetForImageClassification",
        {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1]},
        PIXELS,
        "ts17",
    ),
    transformer(
        "swinv2_hf",
        "Swinv2ForImageClassification",
        {"image_size": 64, "embed_dim": 32, "depths": [1, 1, 2], "num_heads": [2, 4, 8], "window_size": 4},
        PIXELS,
        "ts17",
    ),
    transformer(
        "hiera_hf",
        "HieraForImageClassification",
        {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]},
        PIXELS,
        "ts17",
    ),
    transformer(
        "pvtv2_hf",
        "PvtV2ForImageClassification",
        {
            "image_size": 64,
            "hidden_sizes": [16, 32, 64, 96],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 4, 6],
        },
        PIXELS,
        "ts17",
        "dynamo18",
    ),
    transformer(
        "swiftformer_hf",
        "SwiftFormerForImageClassification",
        {"image_size": 64, "depths": [1, 1, 1, 1], "embed_dims": [16, 32, 48, 64]},
        PIXELS,
        "dynamo18",
    ),
    transformer(
        "mobilevitv2_hf",
        "MobileViTV2ForImageClassification",
        {"image_size": 64, "width_multiplier": 0.5},
        PIXELS,
        "dynamo18",
    ),
    transformer(
        "hgnetv2_hf",
        "HGNetV2ForImageClassification",
        {
            "embedding_size": 16,
            "stem_channels": [3, 16, 16],
            "hidden_sizes": [32, 64],
            "depths": [1, 1],
            "stage_in_channels": [16, 32],
            "stage_mid_channels": [16, 16],
            "stage_out_channels": [32, 64],
            "stage_num_blocks": [1, 1],
            "stage_downsample": [False, True],
            "stage_light_block": [False, True],
            "stage_kernel_size": [3, 5],
            "stage_numb_of_layers": [3, 3],
            "stem_strides": [2, 1, 1, 2, 1],
        },
        PIXELS,
        "ts17",
    ),
    transformer("textnet", "TextNetForImageClassification", {"image_size": [64, 64]}, PIXELS, "ts17", "dynamo18"),
    transformer("dinov3_vit", "DINOv3ViTModel", VISION, PIXELS, "dynamo18"),
    transformer(
        "dinov3_convnext",
        "DINOv3ConvNextModel",
        {"hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1]},
        PIXELS,
        "ts17",
    ),
    transformer("vit_msn", "ViTMSNForImageClassification", VISION, PIXELS, "dynamo18"),
    transformer("ijepa", "IJepaForImageClassification", VISION, PIXELS, "dynamo18"),
    transformer(
        "vitdet",
        "VitDetBackbone",
        VISION
        | {
            "window_block_indices": [0],
            "use_relative_position_embeddings": True,
            "pretrain_image_size": 64,
            "window_size": 2,
        },
        PIXELS,
        "ts17",
    ),
    transformer(
        "data2vec_vision",
        "Data2VecVisionForImageClassification",
        VISION | {"use_relative_position_bias": True},
        PIXELS,
        "ts17",
    ),
    transformer("siglip", "SiglipForImageClassification", {"vision_config": VISION}, PIXELS, "ts17", "dynamo18"),
    transformer(
        "clip_cls", "CLIPForImageClassification", {"vision_config": VISION, "text_config": TEXT}, PIXELS, "dynamo18"
    ),
    transformer(
        "clip",
        "CLIPModel",
        {
            "text_config": TEXT | {"max_position_embeddings": 64, "eos_token_id": 2},
            "vision_config": VISION,
            "projection_dim": 32,
        },
        (*tokens(12, WORDS), *PIXELS),
        "ts17",
    ),
    transformer(
        "siglip_both",
        "SiglipModel",
        {"text_config": TEXT | {"max_position_embeddings": 64}, "vision_config": VISION},
        (*tokens(12, WORDS), *PIXELS),
        "dynamo18",
    ),
    transformer("blip_vision", "BlipVisionModel", VISION, PIXELS, "ts17"),
    transformer(
        "groupvit_vision",
        "GroupViTVisionModel",
        VISION | {"depths": [1, 1, 1], "num_group_tokens": [4, 2, 0], "num_output_groups": [4, 2, 0]},
        PIXELS,
        "ts17",
        "dynamo18",
    ),
    transformer("owlvit_vision", "OwlViTVisionModel", VISION, PIXELS, "dynamo18"),
)
