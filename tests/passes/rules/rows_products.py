"""Rows of matrix products, normalisations and attention."""

from __future__ import annotations

import numpy as np

from tests.passes.rules.row import Row, row

f32, i64 = np.float32, np.int64
MICROSOFT = "com.microsoft::"
HEADS = {"q_num_heads": 4, "kv_num_heads": 4}

PRODUCTS: list[Row] = [
    row("MatMul", "f2,3,6 w6,4", "a,b,c c,d -> a,b,d"),
    row("MatMul", "w4,6 f2,6,3", "a,b c,b,d -> c,a,d"),
    row("MatMul", "f2,3,5,6 f2,3,6,4", "a,b,c,d a,b,d,e -> a,b,c,e"),
    row("MatMul", "f3,5,6 w3,6,4", "a,b,c a,c,d -> a,b,d"),
    row("MatMul", "f1,5,6 w3,6,4", "1,a,b c,b,d -> c,a,d"),
    row("MatMul", "f6 w6,4", "a a,b -> b"),
    row("MatMul", "f5,6 w6", "a,b b -> a"),
    row("Gemm", "f5,6 w6,4 w4", "a,b b,c c -> a,c"),
    row("Gemm", "f6,5 w4,6 w5,1", "a,b c,a b,1 -> b,c", transA=1, transB=1, alpha=0.5, beta=2.0),
    row("Gemm", "f5,6 w6,4 w5,4", "a,b b,c a,c -> a,c", beta=0.0),
    row("Gemm", "f5,6 w6,4", "a,b b,c -> a,c"),
    row(MICROSOFT + "FusedGemm", "f5,6 w6,4 w4", "a,b b,c c -> a,c", activation="Relu"),
    row(MICROSOFT + "FusedGemm", "f5,6 w4,6", "a,b c,b -> a,c", activation="Tanh", transB=1),
    row(MICROSOFT + "FusedGemm", "f5,6 w4,6 w4", "a,b c,b c -> a,c", activation="Sigmoid", transB=1),
    row(MICROSOFT + "FusedMatMul", "f2,6,5 w2,4,6", "a,b,c a,d,b -> a,c,d", transA=1, transB=1, alpha=0.5),
    row(MICROSOFT + "FusedMatMul", "f2,3,5,6 f2,3,4,6", "a,b,c,d a,b,e,d -> a,b,c,e", transB=1),
    row(MICROSOFT + "FusedMatMul", "f2,3,5,6 f3,5,6,4", "a,b,c,d b,c,d,e -> b,c,a,e", transBatchA=1, runs=False),
    row("Einsum", "f2,3,6 w6,4", "a,b,c c,d -> a,b,d", equation="bnc,cd->bnd"),
    row("Einsum", "f2,3,5,6 f2,3,4,6", "a,b,c,d a,b,e,d -> a,b,c,e", equation="bhid,bhjd->bhij"),
    row("Einsum", "f2,3,5,6 w4,6", "a,b,c,d e,d -> a,e,b,c", equation="bhwc,oc->bohw"),
    row("Einsum", "f2,3,5,6 w6,4", "a,b,c,d d,e -> a,b,c,e", equation="... c, c k -> ... k"),
    row("Einsum", "f5,6 w6,4", "a,b b,c -> a,c", equation="ij,jk"),
    row("Einsum", "f2,5,5", "a,!,! -> a,!", equation="bii->bi"),
    row("Einsum", "f2,5,6", "a,b,c -> a,c", equation="bij->bj"),
    row("Einsum", "f5 w6 w5,6", "a b a,b -> a,b", equation="i,j,ij->ij"),
]  # fmt: skip

NORMALISATIONS: list[Row] = [
    row("BatchNormalization", "f2,6,4 w6 w6 w6 w6", "a,b,c b b b b -> a,b,c"),
    row("BatchNormalization", "f2,6,4 w6 f6 w6 w6", "a,b,c b b b b -> a,b,c"),
    row("BatchNormalization", "f2,6,4 w6 w6 w6 w6", "!,!,! ! ! ! ! -> !,!,! ! ! ! !", outputs=5, opset=13),
    row("BatchNormalization", "f2,6,4 w6 w6 w6 w6", "!,!,! ! ! ! ! -> !,!,! ! !", outputs=3, training_mode=1),
    row("InstanceNormalization", "f2,6,4 w6 w6", "a,b,! b b -> a,b,!"),
    row("GroupNormalization", "f2,6,4,4 w6 w6", "a,b·!,!,! b·! b·! -> a,b·!,!,!", num_groups=3, opset=21),
    row("LayerNormalization", "f2,5,6 w6 w6", "a,b,! ! ! -> a,b,!"),
    row("LayerNormalization", "f2,5,6 w5,6", "a,!,! !,! -> a,!,! a,1,1 a,1,1", axis=1, outputs=3),
    row("LayerNormalization", "f2,5,6 w6 w6", "a,b,! ! ! -> a,b,!", opset=14),
    row("SimplifiedLayerNormalization", "f2,5,6 w6", "a,b,c c -> a,b,c"),
    row("SimplifiedLayerNormalization", "f2,5,6 w6", "a,b,! ! -> a,b,! a,b,1", outputs=2),
    row("LpNormalization", "f2,5,6", "a,b,c -> a,b,c", axis=1, p=1),
    row("LRN", "f2,6,4,4", "a,!,b,c -> a,!,b,c", size=3),
    row("RMSNormalization", "f2,5,6 w6", "a,b,c c -> a,b,c", opset=23),
    row(MICROSOFT + "SkipLayerNormalization", "f2,5,6 f2,5,6 w6 w6 w6", "a,b,! a,b,! ! ! ! -> a,b,!"),
    row(
        MICROSOFT + "SkipLayerNormalization",
        "f2,5,6 f2,5,6 w6 w6",
        "a,b,! a,b,! ! ! -> a,b,! a,b,1 a,b,1 a,b,!",
        outputs=4,
    ),
    row(
        MICROSOFT + "SkipLayerNormalization",
        "f2,5,6 f2,5,6 w6 w6 w6",
        "a,b,! a,b,! ! ! ! -> a,b,! a,b,1 a,b,1 a,b,!",
        outputs=4,
    ),
    row(MICROSOFT + "SkipSimplifiedLayerNormalization", "f2,5,6 f2,5,6 w6", "a,b,c a,b,c c -> a,b,c"),
]

ATTENTION: list[Row] = [
    row("Attention", "f2,4,5,6 f2,4,7,6 f2,4,7,3", "!,a,!,b !,a,!,b !,a,!,c -> !,a,!,c", opset=23),
    row("Attention", "f2,4,5,6 f2,2,7,6 f2,2,7,3", "!,a·b,!,c !,a,!,c !,a,!,d -> !,a·b,!,d", opset=23),
    row("Attention", "f2,5,24 f2,7,24 f2,7,12", "!,!,a·b !,!,a·b !,!,a·c -> !,!,a·c", opset=23, **HEADS),
    row("Attention", "f2,5,24 f2,7,12 f2,7,6", "!,!,a·b·c !,!,a·c !,!,a·d -> !,!,a·b·d", opset=23, q_num_heads=4,
        kv_num_heads=2, scale=0.3),
    row("Attention", "f2,4,5,6 f2,4,7,6 f2,4,7,3 w2,4,5,7", "!,a,!,b !,a,!,b !,a,!,c !,a,!,! -> !,a,!,c", opset=24),
    row("RotaryEmbedding", "f2,4,5,6 w2,5,3 w2,5,3", "!,a,!,!·b !,!,b !,!,b -> !,a,!,!·b", opset=23),
    row("RotaryEmbedding", "f2,5,24 w9,3 w9,3 i2,5", "!,!,a·b·! !,b !,b !,! -> !,!,a·b·!", opset=23, num_heads=4,
        interleaved=1),
    row("RotaryEmbedding", "f2,4,5,8 w2,5,2 w2,5,2", "!,a,!,!·b+c !,!,b !,!,b -> !,a,!,!·b+c", opset=23,
        rotary_embedding_dim=4),
    row(MICROSOFT + "RotaryEmbedding", "f2,4,5,6 # w9,3 w9,3", "!,a,!,!·b !,b !,b -> !,a,!,!·b", i64([0])),
    row(MICROSOFT + "MultiHeadAttention", "f2,5,24 f2,7,24 f2,7,12", "!,!,a·b !,!,a·b !,!,a·c -> !,!,a·c", num_heads=4),
    row(MICROSOFT + "MultiHeadAttention", "f2,5,24 f2,7,24 f2,7,12 w60",
        "!,!,a·b !,!,a·b !,!,a·c a·b+a·b+a·c -> !,!,a·c", num_heads=4),
    row(MICROSOFT + "Attention", "f2,5,8 w8,36 w36", "!,!,a a,b·c+b·c+b·c b·c+b·c+b·c -> !,!,b·c", num_heads=4),
    row(MICROSOFT + "Attention", "f2,5,8 w8,32 w32", "!,!,a a,b·c+b·c+b·d b·c+b·c+b·d -> !,!,b·d", num_heads=4,
        qkv_hidden_sizes=[12, 12, 8]),
    row(MICROSOFT + "GroupQueryAttention", "f2,5,32 f2,5,16 f2,5,16 _ _ # #", "!,!,a·b·! !,!,a·! !,!,a·! -> !,!,a·b·!",
        np.int32([4, 4]), np.int32([5]), num_heads=4, kv_num_heads=2),
]  # fmt: skip

ROWS = [*PRODUCTS, *NORMALISATIONS, *ATTENTION]
