"""More of MONAI."""

from __future__ import annotations

from tests.corpus.row import Input, image, volume
from tests.corpus.rows_segmentation import ANY, CHANNELS, CUBE, volumetric

FLAT = ANY | {"spatial_dims": 2}
GREY = image(64, channels=1)
MONAI = (
    volumetric(
        "AHNet",
        {
            "layers": (1, 1, 1, 1),
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 2,
            "psp_block_num": 2,
            "upsample_mode": "trilinear",
        },
        CUBE,
        "ts17",
    ),
    volumetric("SEResNet50", {"spatial_dims": 2, "in_channels": 1, "num_classes": 3}, GREY, "dynamo18"),
    volumetric("SEResNext50", {"spatial_dims": 2, "in_channels": 1, "num_classes": 3}, GREY, "ts17"),
    volumetric("SENet154", {"spatial_dims": 2, "in_channels": 1, "num_classes": 3}, GREY, "ts17"),
    volumetric(
        "EfficientNetBN",
        {"model_name": "efficientnet-b0", "spatial_dims": 2, "in_channels": 1, "num_classes": 3, "pretrained": False},
        GREY,
        "ts17",
    ),
    volumetric("DenseNet121", FLAT, GREY, "dynamo18", suffix="_2d"),
    volumetric(
        "SegResNetVAE",
        {"input_image_size": (32, 32, 32), "spatial_dims": 3, "init_filters": 8, "in_channels": 1, "out_channels": 2},
        CUBE,
        "ts17",
    ),
    volumetric(
        "SegResNetDS",
        {"init_filters": 8, "in_channels": 1, "out_channels": 2, "blocks_down": (1, 1, 1)},
        CUBE,
        "dynamo18",
    ),
    volumetric(
        "VarAutoEncoder",
        {
            "spatial_dims": 2,
            "in_shape": (1, 64, 64),
            "out_channels": 1,
            "latent_size": 8,
            "channels": (8, 16, 32),
            "strides": (2, 2, 2),
        },
        GREY,
        "ts17",
    ),
    volumetric(
        "VQVAE",
        {
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 1,
            "channels": (16, 32),
            "num_res_channels": (16, 32),
            "num_res_layers": 1,
            "num_embeddings": 16,
            "embedding_dim": 8,
            "downsample_parameters": ((2, 4, 1, 1), (2, 4, 1, 1)),
            "upsample_parameters": ((2, 4, 1, 1, 0), (2, 4, 1, 1, 0)),
        },
        GREY,
        "ts17",
    ),
    volumetric(
        "ViT",
        {
            "in_channels": 1,
            "img_size": (32, 32, 32),
            "patch_size": (16, 16, 16),
            "hidden_size": 64,
            "mlp_dim": 128,
            "num_layers": 2,
            "num_heads": 4,
            "classification": True,
        },
        CUBE,
        "dynamo18",
    ),
    volumetric(
        "SwinUNETR",
        {"in_channels": 1, "out_channels": 3, "feature_size": 12, "spatial_dims": 2},
        GREY,
        "ts17",
        suffix="_2d",
    ),
    volumetric(
        "SwinUNETR",
        {"in_channels": 1, "out_channels": 3, "feature_size": 12, "use_v2": True},
        volume((64, 64, 64), 1),
        "ts17",
        suffix="_v2",
    ),
    volumetric(
        "PatchDiscriminator", {"spatial_dims": 2, "channels": 8, "in_channels": 1, "num_layers_d": 2}, GREY, "ts17"
    ),
    volumetric(
        "Regressor",
        {"in_shape": (1, 64, 64), "out_shape": (3,), "channels": (8, 16, 32), "strides": (2, 2, 2)},
        GREY,
        "ts17",
    ),
    volumetric(
        "Classifier",
        {"in_shape": (1, 64, 64), "classes": 3, "channels": (8, 16, 32), "strides": (2, 2, 2)},
        GREY,
        "dynamo18",
    ),
    volumetric("Discriminator", {"in_shape": (1, 64, 64), "channels": (8, 16, 32), "strides": (2, 2, 2)}, GREY, "ts17"),
    volumetric(
        "Generator",
        {"latent_shape": (8,), "start_shape": (16, 8, 8), "channels": (16, 8), "strides": (2, 2)},
        (Input((1, 8), "NC"),),
        "ts17",
    ),
    volumetric(
        "FullyConnectedNet",
        {"in_channels": 16, "out_channels": 4, "hidden_channels": [32, 32]},
        (Input((1, 16), "NC"),),
        "ts17",
    ),
    volumetric("RegUNet", {"spatial_dims": 2, "in_channels": 1, "num_channel_initial": 8, "depth": 2}, GREY, "ts17"),
    volumetric(
        "LocalNet",
        {"spatial_dims": 2, "in_channels": 1, "num_channel_initial": 8, "extract_levels": (0, 1, 2)},
        GREY,
        "ts17",
    ),
    volumetric("DAF3D", {"in_channels": 1, "out_channels": 2}, volume((64, 64, 64), 1), "ts17"),
    volumetric(
        "DynUNet",
        {
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 3,
            "kernel_size": [3] * 4,
            "strides": [1, 2, 2, 2],
            "upsample_kernel_size": [2, 2, 2],
            "filters": [8, 16, 32, 64],
        },
        GREY,
        "dynamo18-dynsize",
        suffix="_2d",
    ),
    volumetric("BasicUNet", FLAT | {"features": (8, 8, 16, 32, 64, 8)}, GREY, "dynamo18-dynsize", suffix="_2d"),
    volumetric("MedNeXtS", {"spatial_dims": 2, "in_channels": 1, "out_channels": 3}, GREY, "dynamo18"),
    volumetric("ResNetFeatures", {"model_name": "resnet10", "pretrained": False, "spatial_dims": 2}, GREY, "ts17"),
    volumetric("VNet", FLAT, GREY, "dynamo18", suffix="_2d"),
    volumetric("HighResNet", FLAT, GREY, "dynamo18", suffix="_2d"),
    volumetric("AttentionUnet", FLAT | CHANNELS, GREY, "dynamo18-dynsize", suffix="_2d"),
    volumetric(
        "VoxelMorphUNet",
        {
            "spatial_dims": 2,
            "in_channels": 2,
            "unet_out_channels": 8,
            "channels": (16, 32, 32, 32, 32, 32),
            "final_conv_channels": (16, 16),
        },
        image(64, channels=2),
        "ts17",
    ),
    volumetric(
        "SegResNet",
        FLAT | {"init_filters": 8, "norm": ("instance", {"affine": True}), "upsample_mode": "deconv"},
        GREY,
        "dynamo18",
        suffix="_2d",
    ),
    volumetric(
        "MILModel",
        {"num_classes": 2, "mil_mode": "att_trans", "pretrained": False, "backbone": "resnet18"},
        (Input((1, 2, 3, 64, 64), "NTCHW", fixed="CTHW"),),
        "ts17",
    ),
)
