"""Hugging Face transformers with small random configurations: text, vision, audio, both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tests.corpus.row import Input, Row, image, signal, tokens

WORDS = 100
TEXT = {"vocab_size": WORDS, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
GROUPED = TEXT | {"num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 16}
VISION = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "image_size": 64, "patch_size": 16}
SEQUENCE = tokens(12, WORDS)
MASKED = (*SEQUENCE, Input((1, 12), "NL", "attention_mask", below=2))
UNPADDED = (*SEQUENCE, Input((1, 12), "NL", "attention_mask", below=2, least=1))
PIXELS = image(64, name="pixel_values")
SPEECH = {"vocab_size": 32, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
          "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
WAVE = (Input((1, 4000), "NL", "input_values"),)
BOTH = ("ts17", "dynamo18")


class Keywords(nn.Module):
    """Calls a model with keywords, as its users do, and returns its first output."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], fixed: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.fixed = fixed

    def forward(self, *values: Tensor) -> Any:
        keywords = dict(zip(self.names, values, strict=True)) | self.fixed
        return self.model(**keywords, return_dict=False)[0]


def transformer(
    name: str,
    model: str,
    options: dict[str, Any],
    inputs: tuple[Input, ...],
    *variants: str,
    config: str = "",
    attention: str = "",
    part: str = "",
    **fixed: Any,
) -> Row:
    """`model` is a transformers class; `part` a submodule of it; `fixed` are further keywords for forward."""
    build = _build(model, config, options, inputs, attention, part, fixed)
    return Row("transformers", name, name.split("_")[0], build, inputs, variants or BOTH)


def _build(
    model: str,
    config: str,
    options: dict[str, Any],
    inputs: tuple[Input, ...],
    attention: str,
    part: str,
    fixed: dict[str, Any],
) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        model_class = getattr(transformers, model)
        config_class = getattr(transformers, config) if config else model_class.config_class
        settings = config_class(**options)
        if attention:
            settings._attn_implementation = attention
        settings._experts_implementation = "batched_mm"  # the grouped one has no ONNX counterpart
        network = model_class(settings).eval()
        chosen = network.get_submodule(part) if part else network
        return Keywords(chosen, tuple(each.name for each in inputs), fixed)

    return build


NO_CACHE = {"use_cache": False}
ENCODERS = (
    transformer("bert", "BertForSequenceClassification", TEXT, MASKED, "ts17", "dynamo18", "ts14-dynsize", "dynamo18-dynbatch"),
    transformer("bert_eager", "BertForSequenceClassification", TEXT, MASKED, "ts17", "ts11-unfolded", attention="eager"),
    transformer("bert_mlm", "BertForMaskedLM", TEXT, SEQUENCE),
    transformer("roberta", "RobertaForSequenceClassification", TEXT | {"max_position_embeddings": 64}, SEQUENCE),
    transformer("distilbert", "DistilBertForSequenceClassification", {"vocab_size": WORDS, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}, MASKED),
    transformer("albert", "AlbertModel", TEXT | {"embedding_size": 32}, SEQUENCE),
    transformer("electra", "ElectraModel", TEXT | {"embedding_size": 32}, SEQUENCE),
    transformer("mobilebert", "MobileBertModel", TEXT | {"embedding_size": 32, "intra_bottleneck_size": 32}, SEQUENCE),
    transformer("squeezebert", "SqueezeBertModel", TEXT | {"embedding_size": 64}, SEQUENCE),
    transformer("deberta", "DebertaV2Model", TEXT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, SEQUENCE),
    transformer("modernbert", "ModernBertModel", TEXT | {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}, SEQUENCE),
    transformer("convbert", "ConvBertModel", TEXT | {"embedding_size": 64}, SEQUENCE),
    transformer("fnet", "FNetModel", TEXT, SEQUENCE, "dynamo18"),
    transformer("mpnet", "MPNetModel", TEXT, SEQUENCE),
    transformer("xlm", "XLMRobertaModel", TEXT, SEQUENCE),
    transformer("t5_encoder", "T5EncoderModel", {"vocab_size": WORDS, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}, SEQUENCE, "ts17", "dynamo18", "ts13-dynbatch"),
    transformer("t5_gated", "T5EncoderModel", {"vocab_size": WORDS, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu"}, SEQUENCE),
    transformer("bart", "BartModel", {"vocab_size": WORDS, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}, SEQUENCE, **NO_CACHE),
)
DECODERS = (
    transformer("gpt2", "GPT2LMHeadModel", {"vocab_size": WORDS, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}, UNPADDED, "ts17", "dynamo18", "dynamo18-dynbatch", **NO_CACHE),
    transformer("gpt2_eager", "GPT2LMHeadModel", {"vocab_size": WORDS, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}, UNPADDED, "ts13", attention="eager", **NO_CACHE),
    transformer("gptneox", "GPTNeoXForCausalLM", TEXT, UNPADDED, **NO_CACHE),
    transformer("bloom", "BloomForCausalLM", {"vocab_size": WORDS, "hidden_size": 64, "n_layer": 2, "n_head": 4}, UNPADDED, **NO_CACHE),
    transformer("opt", "OPTForCausalLM", TEXT | {"ffn_dim": 128, "word_embed_proj_dim": 64}, UNPADDED, **NO_CACHE),
    transformer("llama", "LlamaForCausalLM", GROUPED, UNPADDED, "ts17", "dynamo18", "dynamo23", "dynamo18-dynsize", **NO_CACHE),
    transformer("llama_eager", "LlamaForCausalLM", GROUPED, UNPADDED, "ts17", attention="eager", **NO_CACHE),
    transformer("mistral", "MistralForCausalLM", GROUPED | {"sliding_window": 8}, UNPADDED, **NO_CACHE),
    transformer("qwen2", "Qwen2ForCausalLM", GROUPED, UNPADDED, **NO_CACHE),
    transformer("qwen3", "Qwen3ForCausalLM", GROUPED, UNPADDED, **NO_CACHE),
    transformer("gemma2", "Gemma2ForCausalLM", GROUPED, UNPADDED, **NO_CACHE),
    transformer("gemma3", "Gemma3ForCausalLM", GROUPED, UNPADDED, config="Gemma3TextConfig", **NO_CACHE),
    transformer("phi3", "Phi3ForCausalLM", GROUPED | {"pad_token_id": 0}, UNPADDED, **NO_CACHE),
    transformer("falcon", "FalconForCausalLM", TEXT | {"new_decoder_architecture": True, "num_kv_heads": 2}, UNPADDED, **NO_CACHE),
    transformer("olmo2", "Olmo2ForCausalLM", GROUPED, UNPADDED, **NO_CACHE),
    transformer("mixtral", "MixtralForCausalLM", GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2}, UNPADDED, "dynamo18", "ts17", **NO_CACHE),
    transformer("mamba", "MambaForCausalLM", {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}, UNPADDED, "dynamo18", "ts17", **NO_CACHE),
)
VISIONARY = (
    transformer("vit_hf", "ViTForImageClassification", VISION, PIXELS),
    transformer("deit_hf", "DeiTForImageClassification", VISION, PIXELS),
    transformer("beit_hf", "BeitForImageClassification", VISION | {"use_relative_position_bias": True}, PIXELS),
    transformer("dinov2", "Dinov2Model", VISION | {"patch_size": 16}, PIXELS),
    transformer("clip_vision", "CLIPVisionModel", VISION, PIXELS, "ts17", "dynamo18", "dynamo20-dynbatch"),
    transformer("clip_text", "CLIPTextModel", TEXT | {"max_position_embeddings": 64, "eos_token_id": 2}, SEQUENCE),
    transformer("siglip_vision", "SiglipVisionModel", VISION, PIXELS),
    transformer("segformer", "SegformerForSemanticSegmentation", {"hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1], "decoder_hidden_size": 64}, PIXELS, "ts17", "dynamo18", "ts13-dynsize"),
    transformer("mobilevit_hf", "MobileViTForImageClassification", {"image_size": 64}, PIXELS),
    transformer("swin_hf", "SwinForImageClassification", {"image_size": 64, "embed_dim": 32, "depths": [1, 1, 2], "num_heads": [2, 4, 8], "window_size": 4}, PIXELS),
    transformer("swin2sr", "Swin2SRForImageSuperResolution", {"image_size": 32, "embed_dim": 32, "depths": [2], "num_heads": [2], "window_size": 8}, image(32, name="pixel_values")),
    transformer("cvt", "CvtForImageClassification", {"embed_dim": [16, 32, 64], "depth": [1, 2, 3], "num_heads": [1, 2, 4]}, PIXELS),
    transformer("pvt_hf", "PvtForImageClassification", {"image_size": 64, "hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 6]}, PIXELS),
    transformer("glpn", "GLPNForDepthEstimation", {"num_attention_heads": [1, 2, 4, 6], "hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32}, PIXELS),
    transformer("dpt", "DPTForDepthEstimation", VISION | {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [16, 32, 64, 64], "fusion_hidden_size": 32}, PIXELS),
    transformer("yolos", "YolosForObjectDetection", VISION | {"image_size": [64, 64], "num_detection_tokens": 10}, PIXELS),
    transformer("upernet", "UperNetForSemanticSegmentation", {"hidden_size": 32, "use_auxiliary_head": False, "backbone_config": {"model_type": "convnext", "hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1], "out_features": ["stage1", "stage2", "stage3", "stage4"]}}, image(192, name="pixel_values")),
    transformer("detr", "DetrForObjectDetection", {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "num_queries": 10, "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "backbone_config": {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1], "layer_type": "basic", "out_features": ["stage4"]}}, PIXELS),
    transformer("poolformer_hf", "PoolFormerForImageClassification", {"hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 1, 1]}, PIXELS),
    transformer("superpoint", "SuperPointForKeypointDetection", {}, image(64, channels=1, name="input"), part="encoder"),
    transformer("sam_vision", "SamVisionModel", VISION | {"output_channels": 32, "mlp_dim": 128, "global_attn_indexes": [1], "window_size": 2}, PIXELS),
)
AUDITORY = (
    transformer("whisper_encoder", "WhisperModel", {"vocab_size": WORDS, "d_model": 64, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "num_mel_bins": 20, "max_source_positions": 50, "pad_token_id": 0, "decoder_start_token_id": 1}, (Input((1, 20, 100), "NCL", "input_features", fixed="CL"),), part="encoder"),
    transformer("wav2vec2", "Wav2Vec2ForCTC", SPEECH, WAVE),
    transformer("wav2vec2_layer", "Wav2Vec2ForCTC", SPEECH | {"feat_extract_norm": "layer", "do_stable_layer_norm": True}, WAVE),
    transformer("hubert", "HubertModel", SPEECH, WAVE),
    transformer("ast", "ASTModel", {key: VISION[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")} | {"max_length": 64, "num_mel_bins": 32}, (Input((1, 64, 32), "NLC", "input_values", fixed="LC"),)),
    transformer("patchtst", "PatchTSTModel", {"num_input_channels": 4, "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64}, (Input((1, 32, 4), "NLC", "past_values", fixed="LC"),)),
    transformer("univnet", "UnivNetModel", {"model_in_channels": 16, "model_hidden_channels": 16, "num_mel_bins": 20, "kernel_predictor_hidden_channels": 16}, (Input((1, 10, 20), "NLC", "input_features", fixed="LC"), Input((1, 10, 16), "NLC", "noise_sequence", fixed="LC")), "dynamo18"),
    transformer("hifigan", "SpeechT5HifiGan", {"model_in_dim": 20, "upsample_initial_channel": 64, "upsample_rates": [4, 4], "upsample_kernel_sizes": [8, 8]}, (Input((1, 10, 20), "NLC", "spectrogram", fixed="LC"),)),
    transformer("encodec", "EncodecModel", {"num_filters": 8, "hidden_size": 32, "upsampling_ratios": [4, 2], "num_lstm_layers": 1}, (Input((1, 1, 640), "NCL", "hidden_states"),), part="encoder"),
)
