"""Hugging Face transformers with small random configurations: those that read text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tests.corpus.row import Input, Row, tokens

WORDS = 100
TEXT = {
    "vocab_size": WORDS,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
GROUPED = TEXT | {"num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 16}
SEQUENCE = tokens(12, WORDS)
MASKED = (*SEQUENCE, Input((1, 12), "NL", "attention_mask", below=2))
UNPADDED = (*SEQUENCE, Input((1, 12), "NL", "attention_mask", below=2, least=1))
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
    transformer(
        "bert", "BertForSequenceClassification", TEXT, MASKED, "ts17", "dynamo18", "ts14-dynsize", "dynamo18-dynbatch"
    ),
    transformer(
        "bert_eager", "BertForSequenceClassification", TEXT, MASKED, "ts17", "ts11-unfolded", attention="eager"
    ),
    transformer("bert_mlm", "BertForMaskedLM", TEXT, SEQUENCE),
    transformer("roberta", "RobertaForSequenceClassification", TEXT | {"max_position_embeddings": 64}, SEQUENCE),
    transformer(
        "distilbert",
        "DistilBertForSequenceClassification",
        {"vocab_size": WORDS, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128},
        MASKED,
    ),
    transformer("albert", "AlbertModel", TEXT | {"embedding_size": 32}, SEQUENCE),
    transformer("electra", "ElectraModel", TEXT | {"embedding_size": 32}, SEQUENCE),
    transformer("mobilebert", "MobileBertModel", TEXT | {"embedding_size": 32, "intra_bottleneck_size": 32}, SEQUENCE),
    transformer("squeezebert", "SqueezeBertModel", TEXT | {"embedding_size": 64}, SEQUENCE),
    transformer(
        "deberta", "DebertaV2Model", TEXT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, SEQUENCE
    ),
    transformer(
        "modernbert",
        "ModernBertModel",
        TEXT | {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
        SEQUENCE,
    ),
    transformer("convbert", "ConvBertModel", TEXT | {"embedding_size": 64}, SEQUENCE),
    transformer("fnet", "FNetModel", TEXT, SEQUENCE, "dynamo18"),
    transformer("mpnet", "MPNetModel", TEXT, SEQUENCE),
    transformer("xlm", "XLMRobertaModel", TEXT, SEQUENCE),
    transformer(
        "t5_encoder",
        "T5EncoderModel",
        {"vocab_size": WORDS, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
        SEQUENCE,
        "ts17",
        "dynamo18",
        "ts13-dynbatch",
    ),
    transformer(
        "t5_gated",
        "T5EncoderModel",
        {
            "vocab_size": WORDS,
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 128,
            "num_layers": 2,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
        },
        SEQUENCE,
    ),
    transformer(
        "bart",
        "BartModel",
        {
            "vocab_size": WORDS,
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
        },
        SEQUENCE,
        **NO_CACHE,
    ),
)
DECODERS = (
    transformer(
        "gpt2",
        "GPT2LMHeadModel",
        {"vocab_size": WORDS, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64},
        UNPADDED,
        "ts17",
        "dynamo18",
        "dynamo18-dynbatch",
        **NO_CACHE,
    ),
    transformer(
        "gpt2_eager",
        "GPT2LMHeadModel",
        {"vocab_size": WORDS, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64},
        UNPADDED,
        "ts13",
        attention="eager",
        **NO_CACHE,
    ),
    transformer("gptneox", "GPTNeoXForCausalLM", TEXT, UNPADDED, **NO_CACHE),
    transformer(
        "bloom",
        "BloomForCausalLM",
        {"vocab_size": WORDS, "hidden_size": 64, "n_layer": 2, "n_head": 4},
        UNPADDED,
        **NO_CACHE,
    ),
    transformer("opt", "OPTForCausalLM", TEXT | {"ffn_dim": 128, "word_embed_proj_dim": 64}, UNPADDED, **NO_CACHE),
    transformer(
        "llama", "LlamaForCausalLM", GROUPED, UNPADDED, "ts17", "dynamo18", "dynamo23", "dynamo18-dynsize", **NO_CACHE
    ),
    transformer("llama_eager", "LlamaForCausalLM", GROUPED, UNPADDED, "ts17", attention="eager", **NO_CACHE),
    transformer("mistral", "MistralForCausalLM", GROUPED | {"sliding_window": 8}, UNPADDED, **NO_CACHE),
    transformer("qwen2", "Qwen2ForCausalLM", GROUPED, UNPADDED, **NO_CACHE),
    transformer("qwen3", "Qwen3ForCausalLM", GROUPED, UNPADDED, **NO_CACHE),
    transformer("gemma2", "Gemma2ForCausalLM", GROUPED, UNPADDED, **NO_CACHE),
    transformer("gemma3", "Gemma3ForCausalLM", GROUPED, UNPADDED, config="Gemma3TextConfig", **NO_CACHE),
    transformer("phi3", "Phi3ForCausalLM", GROUPED | {"pad_token_id": 0}, UNPADDED, **NO_CACHE),
    transformer(
        "falcon",
        "FalconForCausalLM",
        TEXT | {"new_decoder_architecture": True, "num_kv_heads": 2},
        UNPADDED,
        **NO_CACHE,
    ),
    transformer("olmo2", "Olmo2ForCausalLM", GROUPED, UNPADDED, **NO_CACHE),
    transformer(
        "mixtral",
        "MixtralForCausalLM",
        GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2},
        UNPADDED,
        "dynamo18",
        "ts17",
        **NO_CACHE,
    ),
    transformer(
        "mamba",
        "MambaForCausalLM",
        {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
        UNPADDED,
        "dynamo18",
        "ts17",
        **NO_CACHE,
    ),
)
