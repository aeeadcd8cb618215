"""timm's convolutional networks."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tests.corpus.row import Row, image


def timm(name: str, family: str, size: int, *variants: str, fused: bool = True, **options: object) -> Row:
    """A timm classifier; `fused` attention is torch's own, `options` go to timm.create_model."""
    return Row("timm", name, family, _build(name, fused, options), image(size), variants or ("ts17",))


def _build(name: str, fused: bool, options: dict[str, object]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from timm import create_model
        from timm.layers import set_fused_attn

        set_fused_attn(fused)
        return create_model(name, pretrained=False, **options)  # type: ignore[no-any-return]

    return build


CONVOLUTIONAL = (
    timm("resnet18", "resnet", 64, "ts17", "ts9", "ts13-unfolded", "ts17-dynsize", "dynamo18", "dynamo20-dynbatch"),
    timm("resnet26d", "resnet-d", 64, "ts17", "ts11-unfolded"),
    timm("resnet50", "resnet", 64, "ts17", "ts13-dynbatch", "dynamo18"),
    timm("resnetv2_50", "preact resnet", 64, "ts17", "ts13-unfolded"),
    timm("seresnet18", "se resnet", 64, "ts17", "ts9", "dynamo18"),
    timm("legacy_seresnext26_32x4d", "se resnext", 64, "ts13"),
    timm("ecaresnet26t", "eca resnet", 64, "ts17", "dynamo18", "ts13-dynbatch"),
    timm("cspresnet50", "cspresnet", 64, "ts17", "dynamo18"),
    timm("cspdarknet53", "cspdarknet", 64, "ts13"),
    timm("darknet53", "darknet", 64, "ts17-unfolded"),
    timm("cs3darknet_focus_s", "cs3darknet", 64, "ts17", "dynamo18"),
    timm("cs3sedarknet_l", "cs3darknet", 64, "ts16-dynsize"),
    timm("dpn68", "dpn", 64, "ts17", "dynamo18"),
    timm("dla34", "dla", 64, "ts17", "ts11-unfolded"),
    timm("dla46x_c", "dla", 64, "ts17"),
    timm("dla60_res2net", "dla res2net", 64, "ts17"),
    timm("hrnet_w18_small", "hrnet", 64, "ts17", "dynamo18", "ts13-dynsize"),
    timm("res2net50_26w_4s", "res2net", 64, "ts17", "dynamo18"),
    timm("res2next50", "res2next", 64, "ts13-unfolded"),
    timm("resnest14d", "resnest", 64, "ts17", "ts13-dynbatch", "dynamo18"),
    timm("resnest50d_4s2x40d", "resnest", 64, "ts17"),
    timm("rexnet_100", "rexnet", 64, "ts17", "ts11", "dynamo18"),
    timm("rexnetr_100", "rexnet", 64, "ts17-unfolded"),
    timm("ghostnet_100", "ghostnet", 64, "ts17", "dynamo18"),
    timm("ghostnetv2_100", "ghostnetv2", 64, "ts17", "ts13-dynbatch"),
    timm("ghostnetv3_050", "ghostnetv3", 64, "ts17"),
    timm("repghostnet_050", "repghostnet", 64, "ts17"),
    timm("mixnet_s", "mixnet", 64, "ts17", "dynamo18"),
    timm("tf_mixnet_s", "mixnet", 64, "ts13"),
    timm("inception_next_atto", "inception_next", 64, "ts17", "dynamo18"),
    timm("inception_v3", "inception_v3", 96, "ts13"),
    timm("inception_v4", "inception_v4", 96, "ts17"),
    timm("nfnet_l0", "nfnet", 64, "ts17"),
    timm("test_nfnet", "nfnet", 64, "ts17", "dynamo18", "ts13-unfolded"),
    timm("nf_regnet_b0", "nf_regnet", 64, "ts17", "ts17-unfolded"),
    timm("nf_resnet26", "nf_resnet", 64, "ts13"),
    timm("skresnet18", "skresnet", 64, "ts17", "ts13-dynbatch", "dynamo18"),
    timm("skresnext50_32x4d", "skresnext", 64, "ts17"),
    timm("gernet_s", "gernet", 64, "ts17"),
    timm("repvgg_a0", "repvgg", 64, "ts17", "ts17-unfolded", "dynamo18"),
    timm("repvgg_b1g4", "repvgg", 32, "ts17"),
    timm("ese_vovnet19b_slim_dw", "vovnet", 64, "ts17", "dynamo18"),
    timm("ese_vovnet19b_slim", "vovnet", 64, "ts11-unfolded"),
    timm("legacy_xception", "xception", 96, "ts17"),
    timm("selecsls42b", "selecsls", 64, "ts17", "dynamo18"),
    timm("hardcorenas_a", "hardcorenas", 64, "ts17"),
    timm("lcnet_050", "lcnet", 64, "ts17", "ts9", "dynamo20"),
    timm("lcnetv2_small", "lcnetv2", 64, "ts17"),
    timm("tinynet_e", "tinynet", 64, "ts17-unfolded"),
    timm("fbnetc_100", "fbnet", 64, "ts13"),
    timm("fbnetv3_b", "fbnetv3", 64, "ts17"),
    timm("spnasnet_100", "spnasnet", 64, "ts11"),
    timm("semnasnet_050", "mnasnet", 64, "ts17"),
    timm("mobilenetv1_100", "mobilenet_v1", 64, "ts17", "ts9-unfolded"),
    timm("mobilenetv2_050", "mobilenet_v2", 64, "ts17", "dynamo18-dynbatch"),
    timm("mobilenetv3_small_050", "mobilenet_v3", 64, "ts17", "ts11", "dynamo18"),
    timm("mobilenetv4_conv_small_050", "mobilenet_v4", 64, "ts17", "dynamo18"),
    timm("mobilenetv4_conv_blur_medium", "mobilenet_v4", 64, "ts17"),
    timm("mobileone_s0", "mobileone", 64, "ts17", "ts17-unfolded"),
    timm("mobilenet_edgetpu_v2_xs", "mobilenet_edgetpu", 64, "ts17"),
    timm("efficientnet_b0", "efficientnet", 64, "ts17", "ts13-dynbatch", "dynamo18"),
    timm("efficientnet_lite0", "efficientnet_lite", 64, "ts17-unfolded"),
    timm("efficientnet_es", "efficientnet_edge", 64, "ts11"),
    timm("efficientnetv2_rw_t", "efficientnet_v2", 64, "ts17"),
    timm("efficientnet_b0_gn", "efficientnet groupnorm", 64, "ts17", "dynamo18", "dynamo21"),
    timm("efficientnet_blur_b0", "efficientnet blur", 64, "ts17"),
    timm("efficientnet_cc_b0_4e", "condconv", 64, "ts17"),
    timm("tf_efficientnetv2_b0", "efficientnet_v2", 64, "ts17-dynsize"),
    timm("convnext_atto", "convnext", 64, "ts17", "ts13-dynbatch", "dynamo18"),
    timm("convnext_zepto_rms", "convnext rmsnorm", 64, "ts17", "dynamo18", "dynamo23"),
    timm("convnextv2_atto", "convnextv2", 64, "ts17", "dynamo18"),
    timm("convmixer_768_32", "convmixer", 56, "ts17"),
    timm("regnetx_002", "regnet", 64, "ts17", "ts9", "dynamo18"),
    timm("regnety_002", "regnet", 64, "ts17", "ts13-unfolded"),
    timm("regnetz_005", "regnetz", 64, "ts17", "dynamo18"),
    timm("regnetv_040", "regnetv", 64, "ts17"),
    timm("resnetv2_50x1_bit", "weight standardisation", 64, "ts17", "ts17-unfolded", "dynamo18"),
    timm("resnetv2_50d_gn", "groupnorm resnet", 64, "ts17", "dynamo21"),
    timm("resnetv2_50d_evos", "evonorm resnet", 64, "ts17"),
    timm("resnetv2_50d_frn", "filter response norm", 64, "ts17"),
    timm("resnet50_gn", "groupnorm resnet", 64, "ts13", "dynamo18-dynbatch"),
    timm("resnetblur18", "blurpool resnet", 64, "ts17"),
    timm("resnetaa34d", "antialiased resnet", 64, "ts17"),
    timm("resnetrs50", "resnet-rs", 64, "ts17"),
    timm("resnet33ts", "byob resnet", 64, "ts17"),
    timm("resnet51q", "byob resnet", 64, "ts17"),
    timm("gcresnet33ts", "gcresnet", 64, "ts17", "dynamo18"),
    timm("bat_resnext26ts", "bat", 256, "ts17", "dynamo18"),
    timm("resnext50_32x4d", "resnext", 64, "ts17", "dynamo18"),
    timm("seresnext26d_32x4d", "se resnext", 64, "ts17"),
    timm("densenet121", "densenet", 64, "ts17", "ts11-unfolded", "dynamo18"),
    timm("densenetblur121d", "densenet blur", 64, "ts17-unfolded"),
    timm("rdnet_tiny", "rdnet", 64, "ts17"),
    timm("hgnet_tiny", "hgnet", 64, "ts17"),
    timm("hgnetv2_b0", "hgnetv2", 64, "ts17", "dynamo18"),
    timm("fasternet_t0", "fasternet", 64, "ts17", "dynamo18"),
    timm("starnet_s050", "starnet", 64, "ts17", "dynamo18", "ts13-unfolded"),
    timm("mambaout_femto", "mambaout", 64, "ts17", "dynamo18"),
    timm("cspnext_tiny", "cspnext", 64, "ts17"),
    timm("tresnet_m", "tresnet", 64, "ts17"),
    timm("pnasnet5large", "pnasnet", 96, "ts17"),
    timm("inception_resnet_v2", "inception_resnet_v2", 96, "ts17"),
)
