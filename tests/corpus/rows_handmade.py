"""The networks written out in `handmade.py` and `handmade_patterns.py`."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tests.corpus import handmade as h
from tests.corpus import handmade_patterns as p
from tests.corpus.row import Input, Row, image, signal, tokens


def own(name: str, family: str, build: Callable[[], nn.Module], inputs: tuple[Input, ...], *variants: str) -> Row:
    return Row("handmade", name, family, build, inputs, variants or ("ts17", "dynamo18"))


PAIR = (*image(32, name="left"), *image(32, name="right"), Input((1, 8), "NC", "style"))
VECTOR = (Input((1, 32), "NC"),)
HANDMADE = (
    own("lstm", "recurrent", lambda: h.RecurrentClassifier("LSTM"), tokens(9, 50), "ts17", "dynamo18", "ts13-dynbatch"),
    own("bilstm", "recurrent", lambda: h.RecurrentClassifier("LSTM", True), tokens(9, 50), "ts17", "dynamo18"),
    own("gru", "recurrent", lambda: h.RecurrentClassifier("GRU"), tokens(9, 50), "ts17", "dynamo18"),
    own("rnn", "recurrent", lambda: h.RecurrentClassifier("RNN"), tokens(9, 50), "ts17"),
    own("crnn", "crnn", h.ConvolutionalRecurrent, image((32, 64), channels=1), "ts17", "dynamo18", "ts11-unfolded"),
    own("espcn", "espcn", h.SubPixel, image(24, channels=1), "ts17", "dynamo18", "ts11-dynsize"),
    own("srresnet", "srresnet", h.SuperResolution, image(24), "ts17", "dynamo18", "ts13-dynsize", "ts11-unfolded"),
    own("unet_transposed", "unet transposed", h.TransposedUNet, image(32), "ts17", "dynamo18", "ts9", "ts17-dynsize"),
    own("dcgan", "dcgan", h.Generator, VECTOR, "ts17", "dynamo18", "ts13-dynbatch", "ts11-unfolded"),
    own(
        "resnet20_pad",
        "option-a resnet",
        h.PaddedResidual,
        image(32),
        "ts17",
        "dynamo18",
        "ts13-dynbatch",
        "ts11-unfolded",
    ),
    own("resnet20_pad_end", "option-a resnet", lambda: h.PaddedResidual(False), image(32), "ts17", "dynamo18"),
    own("pointnet", "pointnet", h.PointNet, signal(40, 3), "ts17", "dynamo18", "ts13-dynsize", "ts17-unfolded"),
    own("convtasnet", "conv-tasnet", h.Separation, signal(400, 1), "ts17", "dynamo18", "ts13-dynsize"),
    own("wavenet", "wavenet", h.GatedResidual, signal(128, 1), "ts17", "dynamo18", "ts11"),
    own("keyword_spotter", "audio convnet", p.KeywordSpotter, signal(800, 1)),
    own(
        "lenet_flatten",
        "flatten into gemm",
        p.FlattenedClassifier,
        image(32),
        "ts17",
        "dynamo18",
        "ts9",
        "ts17-dynbatch",
    ),
    own("shared_head", "shared head", p.SharedHead, image(32), "ts17", "dynamo18", "ts13-dynbatch"),
    own("einsum_attention", "einsum", p.Einsums, (Input((1, 6, 48), "NLC"),), "ts17", "dynamo18", "ts13-dynbatch"),
    own(
        "several_io", "several inputs", p.SeveralInputsAndOutputs, PAIR, "ts17", "dynamo18", "ts11", "dynamo18-dynbatch"
    ),
    own("space_to_depth", "space to depth", p.SpaceToDepthStem, image(32), "ts17", "dynamo18", "ts13-dynsize"),
    own("grouped_shuffle", "grouped shuffle", p.GroupedShuffle, image(16), "ts17", "dynamo18", "ts13-dynbatch"),
    own(
        "standardised_weights",
        "weight standardisation",
        p.StandardisedWeights,
        image(16),
        "ts17",
        "ts17-unfolded",
        "dynamo18",
        "dynamo21",
    ),
    own("grid_sample", "spatial transformer", p.WarpedFeatures, image(32), "ts17", "dynamo18", "dynamo20"),
    own("mixture_of_experts", "mixture of experts", p.MixtureOfExperts, VECTOR, "ts17", "dynamo18"),
)
