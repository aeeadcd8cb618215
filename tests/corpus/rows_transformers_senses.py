"""Hugging Face transformers with small random configurations: those that see or hear."""

from __future__ import annotations

from tests.corpus.row import Input, image
from tests.corpus.rows_transformers import SEQUENCE, TEXT, WORDS, transformer

VISION = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 64,
    "patch_size": 16,
}
PIXELS = image(64, name="pixel_values")
SPEECH = {
    "vocab_size": 32,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "conv_dim": (32,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
WAVE = (Input((1, 4000), "NL", "input_values"),)
VISIONARY = (
    transformer("vit_hf", "ViTForImageClassification", VISION, PIXELS),
    transformer("deit_hf", "DeiTForImageClassification", VISION, PIXELS),
    transformer("beit_hf", "BeitForImageClassification", VISION | {"use_relative_position_bias": True}, PIXELS),
    transformer("dinov2", "Dinov2Model", VISION | {"patch_size": 16}, PIXELS),
    transformer("clip_vision", "CLIPVisionModel", VISION, PIXELS, "ts17", "dynamo18", "dynamo20-dynbatch"),
    transformer("clip_text", "CLIPTextModel", TEXT | {"max_position_embeddings": 64, "eos_token_id": 2}, SEQUENCE),
    transformer("siglip_vision", "SiglipVisionModel", VISION, PIXELS),
    transformer(
        "segformer",
        "SegformerForSemanticSegmentation",
        {"hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1], "decoder_hidden_size": 64},
        PIXELS,
        "ts17",
        "dynamo18",
        "ts13-dynsize",
    ),
    transformer("mobilevit_hf", "MobileViTForImageClassification", {"image_size": 64}, PIXELS),
    transformer(
        "swin_hf",
        "SwinForImageClassification",
        {"image_size": 64, "embed_dim": 32, "depths": [1, 1, 2], "num_heads": [2, 4, 8], "window_size": 4},
        PIXELS,
    ),
    transformer(
        "swin2sr",
        "Swin2SRForImageSuperResolution",
        {"image_size": 32, "embed_dim": 32, "depths": [2], "num_heads": [2], "window_size": 8},
        image(32, name="pixel_values"),
    ),
    transformer(
        "cvt",
        "CvtForImageClassification",
        {"embed_dim": [16, 32, 64], "depth": [1, 2, 3], "num_heads": [1, 2, 4]},
        PIXELS,
    ),
    transformer(
        "pvt_hf",
        "PvtForImageClassification",
        {
            "image_size": 64,
            "hidden_sizes": [16, 32, 64, 96],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 4, 6],
        },
        PIXELS,
    ),
    transformer(
        "glpn",
        "GLPNForDepthEstimation",
        {
            "num_attention_heads": [1, 2, 4, 6],
            "hidden_sizes": [16, 32, 64, 96],
            "depths": [1, 1, 1, 1],
            "decoder_hidden_size": 32,
        },
        PIXELS,
    ),
    transformer(
        "dpt",
        "DPTForDepthEstimation",
        VISION
        | {
            "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [16, 32, 64, 64],
            "fusion_hidden_size": 32,
        },
        PIXELS,
    ),
    transformer(
        "yolos", "YolosForObjectDetection", VISION | {"image_size": [64, 64], "num_detection_tokens": 10}, PIXELS
    ),
    transformer(
        "upernet",
        "UperNetForSemanticSegmentation",
        {
            "hidden_size": 32,
            "use_auxiliary_head": False,
            "backbone_config": {
                "model_type": "convnext",
                "hidden_sizes": [16, 32, 64, 96],
                "depths": [1, 1, 1, 1],
                "out_features": ["stage1", "stage2", "stage3", "stage4"],
            },
        },
        image(192, name="pixel_values"),
    ),
    transformer(
        "detr",
        "DetrForObjectDetection",
        {
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "num_queries": 10,
            "use_timm_backbone": False,
            "use_pretrained_backbone": False,
            "backbone": None,
            "backbone_config": {
                "model_type": "resnet",
                "embedding_size": 16,
                "hidden_sizes": [16, 32, 64, 128],
                "depths": [1, 1, 1, 1],
                "layer_type": "basic",
                "out_features": ["stage4"],
            },
        },
        PIXELS,
    ),
    transformer(
        "poolformer_hf",
        "PoolFormerForImageClassification",
        {"hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1]},
        PIXELS,
    ),
    transformer(
        "superpoint", "SuperPointForKeypointDetection", {}, image(64, channels=1, name="input"), part="encoder"
    ),
    transformer(
        "sam_vision",
        "SamVisionModel",
        VISION | {"output_channels": 32, "mlp_dim": 128, "global_attn_indexes": [1], "window_size": 2},
        PIXELS,
    ),
)
AUDITORY = (
    transformer(
        "whisper_encoder",
        "WhisperModel",
        {
            "vocab_size": WORDS,
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 1,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "num_mel_bins": 20,
            "max_source_positions": 50,
            "pad_token_id": 0,
            "decoder_start_token_id": 1,
        },
        (Input((1, 20, 100), "NCL", "input_features", fixed="CL"),),
        part="encoder",
    ),
    transformer("wav2vec2", "Wav2Vec2ForCTC", SPEECH, WAVE),
    transformer(
        "wav2vec2_layer", "Wav2Vec2ForCTC", SPEECH | {"feat_extract_norm": "layer", "do_stable_layer_norm": True}, WAVE
    ),
    transformer("hubert", "HubertModel", SPEECH, WAVE),
    transformer(
        "ast",
        "ASTModel",
        {key: VISION[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}
        | {"max_length": 64, "num_mel_bins": 32},
        (Input((1, 64, 32), "NLC", "input_values", fixed="LC"),),
    ),
    transformer(
        "patchtst",
        "PatchTSTModel",
        {
            "num_input_channels": 4,
            "context_length": 32,
            "patch_length": 8,
            "patch_stride": 8,
            "d_model": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 64,
        },
        (Input((1, 32, 4), "NLC", "past_values", fixed="LC"),),
    ),
    transformer(
        "univnet",
        "UnivNetModel",
        {
            "model_in_channels": 16,
            "model_hidden_channels": 16,
            "num_mel_bins": 20,
            "kernel_predictor_hidden_channels": 16,
        },
        (
            Input((1, 10, 20), "NLC", "input_features", fixed="LC"),
            Input((1, 10, 16), "NLC", "noise_sequence", fixed="LC"),
        ),
        "dynamo18",
    ),
    transformer(
        "hifigan",
        "SpeechT5HifiGan",
        {"model_in_dim": 20, "upsample_initial_channel": 64, "upsample_rates": [4, 4], "upsample_kernel_sizes": [8, 8]},
        (Input((1, 10, 20), "NLC", "spectrogram", fixed="LC"),),
    ),
    transformer(
        "encodec",
        "EncodecModel",
        {"num_filters": 8, "hidden_size": 32, "upsampling_ratios": [4, 2], "num_lstm_layers": 1},
        (Input((1, 1, 640), "NCL", "hidden_states"),),
        part="encoder",
    ),
)
