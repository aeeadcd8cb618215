"""diffusers' autoencoders and denoisers with tiny configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from tests.corpus.row import Input, Row, image
from tests.corpus.rows_transformers import Keywords


def diffuser(
    name: str, family: str, model: str, options: dict[str, Any], inputs: tuple[Input, ...], *variants: str
) -> Row:
    """A diffusers model by class name."""
    return Row("diffusers", name, family, _build(model, options, inputs), inputs, variants or ("ts17", "dynamo18"))


def _build(model: str, options: dict[str, Any], inputs: tuple[Input, ...]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import diffusers

        network = getattr(diffusers, model)(**options).eval()
        return Keywords(network, tuple(each.name for each in inputs), {})

    return build


LATENT = image(16, channels=4, name="sample")
STEP = (Input((1,), "N", "timestep", below=1000),)
PROMPT = (Input((1, 6, 32), "NLC", "encoder_hidden_states"),)
NARROW = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
KL = NARROW | {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
}
CONDITION = NARROW | {
    "sample_size": 16,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
}
UNET = NARROW | {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
TRANSFORMER = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "sample_size": 16, "patch_size": 2}
CONTROL = {key: value for key, value in CONDITION.items() if key not in ("sample_size", "up_block_types")} | {
    "conditioning_embedding_out_channels": (8, 16)
}
DIFFUSERS = (
    diffuser(
        "autoencoder_kl", "vae", "AutoencoderKL", KL, image(32, name="sample"), "ts17", "dynamo18", "ts13-dynsize"
    ),
    diffuser(
        "autoencoder_tiny",
        "tiny vae",
        "AutoencoderTiny",
        {"encoder_block_out_channels": (16,) * 4, "decoder_block_out_channels": (16,) * 4},
        image(32, name="sample"),
    ),
    diffuser(
        "vq_model",
        "vq-vae",
        "VQModel",
        NARROW
        | {
            "num_vq_embeddings": 32,
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
        },
        image(32, name="sample"),
    ),
    diffuser(
        "asymmetric_kl",
        "vae",
        "AsymmetricAutoencoderKL",
        {
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "down_block_out_channels": (32, 64),
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "up_block_out_channels": (32, 64),
            "norm_num_groups": 8,
        },
        image(32, name="sample"),
    ),
    diffuser(
        "autoencoder_dc",
        "deep-compression vae",
        "AutoencoderDC",
        {
            "latent_channels": 8,
            "attention_head_dim": 8,
            "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "encoder_block_out_channels": (32, 64),
            "decoder_block_out_channels": (32, 64),
            "encoder_layers_per_block": (1, 1),
            "decoder_layers_per_block": (1, 1),
            "encoder_qkv_multiscales": ((), (5,)),
            "decoder_qkv_multiscales": ((), (5,)),
        },
        image(32, name="sample"),
        "dynamo18",
    ),
    diffuser("unet2d", "denoising unet", "UNet2DModel", UNET, LATENT + STEP, "ts17", "dynamo18", "ts17-dynbatch"),
    diffuser(
        "unet2d_scale_shift",
        "denoising unet",
        "UNet2DModel",
        UNET | {"resnet_time_scale_shift": "scale_shift", "downsample_type": "resnet", "upsample_type": "resnet"},
        LATENT + STEP,
    ),
    diffuser(
        "unet2d_condition",
        "conditioned unet",
        "UNet2DConditionModel",
        CONDITION,
        LATENT + STEP + PROMPT,
        "ts17",
        "dynamo18",
        "ts17-dynbatch",
        "dynamo21",
    ),
    diffuser(
        "unet2d_condition_linear",
        "conditioned unet",
        "UNet2DConditionModel",
        CONDITION | {"use_linear_projection": True},
        LATENT + STEP + PROMPT,
    ),
    diffuser(
        "transformer2d_dit",
        "dit",
        "DiTTransformer2DModel",
        TRANSFORMER | {"in_channels": 4, "norm_num_groups": 8},
        (Input((1, 4, 16, 16), "NCHW", "hidden_states"), *STEP, Input((1,), "N", "class_labels", below=1000)),
    ),
    diffuser(
        "pixart",
        "pixart",
        "PixArtTransformer2DModel",
        TRANSFORMER
        | {
            "in_channels": 4,
            "out_channels": 4,
            "cross_attention_dim": 32,
            "caption_channels": 32,
            "norm_num_groups": 8,
            "use_additional_conditions": False,
        },
        (Input((1, 4, 16, 16), "NCHW", "hidden_states"), *PROMPT, *STEP),
    ),
    diffuser(
        "sd3",
        "mmdit",
        "SD3Transformer2DModel",
        {
            "sample_size": 16,
            "patch_size": 2,
            "in_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 32,
            "caption_projection_dim": 32,
            "pooled_projection_dim": 32,
            "out_channels": 4,
            "pos_embed_max_size": 16,
        },
        (Input((1, 4, 16, 16), "NCHW", "hidden_states"), *PROMPT, Input((1, 32), "NC", "pooled_projections"), *STEP),
    ),
    diffuser(
        "sana",
        "sana",
        "SanaTransformer2DModel",
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 16,
            "cross_attention_dim": 32,
            "caption_channels": 32,
            "sample_size": 16,
        },
        (Input((1, 4, 16, 16), "NCHW", "hidden_states"), *PROMPT, *STEP),
    ),
    diffuser(
        "unet1d",
        "denoising unet 1-d",
        "UNet1DModel",
        {
            "sample_size": 64,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": (32, 32, 64),
            "down_block_types": ("DownBlock1DNoSkip", "DownBlock1D", "AttnDownBlock1D"),
            "up_block_types": ("AttnUpBlock1D", "UpBlock1D", "UpBlock1DNoSkip"),
            "time_embedding_type": "positional",
            "use_timestep_embedding": False,
            "flip_sin_to_cos": True,
            "extra_in_channels": 32,
        },
        (Input((1, 4, 64), "NCL", "sample", fixed="CL"), *STEP),
        "dynamo18",
    ),
    diffuser(
        "controlnet",
        "controlnet",
        "ControlNetModel",
        CONTROL,
        LATENT + STEP + PROMPT + image(32, name="controlnet_cond"),
    ),
)
