"""pytorchcv: the families that only it has, and CIFAR-sized networks."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tests.corpus.row import Row, image


def pytorchcv(name: str, family: str, size: int, *variants: str, sized: bool = True) -> Row:
    """A pytorchcv network on one square image; not `sized`: it has one image size only."""
    options = {"in_size": (size, size)} if sized else {}
    return Row("pytorchcv", name, family, _build(name, options), image(size), variants or ("ts17",))


def _build(name: str, options: dict[str, tuple[int, int]]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from pytorchcv.model_provider import get_model

        return get_model(name, pretrained=False, **options)  # type: ignore[no-any-return]

    return build


CLASSIFIERS = (
    pytorchcv("resnet20_cifar10", "cifar resnet", 32, "ts17", "dynamo18", "ts9-unfolded"),
    pytorchcv("shufflenet_g1_w1", "shufflenet_v1", 224, "ts17"),
    pytorchcv("shufflenet_g3_wd4", "shufflenet_v1", 224, "ts17", "ts11", "dynamo18"),
    pytorchcv("shufflenetv2b_wd2", "shufflenet_v2b", 224, "ts17", "ts13-dynbatch"),
    pytorchcv("pyramidnet110_a48_cifar10", "pyramidnet", 32, "ts17", "ts11-unfolded", "dynamo18"),
    pytorchcv("preresnet18_wd2", "preresnet", 224, "ts17", "ts13-unfolded"),
    pytorchcv("densenet40_k12_cifar10", "cifar densenet", 32, "ts17", "dynamo18"),
    pytorchcv("densenet100_k12_bc_cifar10", "cifar densenet", 32, "ts13-unfolded"),
    pytorchcv("peleenet", "peleenet", 224, "ts17", "dynamo18"),
    pytorchcv("ibn_resnet50", "ibn resnet", 224, "ts17"),
    pytorchcv("ibnb_resnet50", "ibn resnet", 224, "ts13-unfolded"),
    pytorchcv("ibn_densenet121", "ibn densenet", 224, "ts17"),
    pytorchcv("airnet50_1x64d_r16", "airnet", 224, "ts17"),
    pytorchcv("bam_resnet18", "bam resnet", 224, "ts17", "dynamo18"),
    pytorchcv("cbam_resnet18", "cbam resnet", 224, "ts17", "dynamo18"),
    pytorchcv("condensenet74_c4_g4", "condensenet", 224, "ts17", "dynamo18"),
    pytorchcv("diracnet18v2", "diracnet", 224, "ts17"),
    pytorchcv("menet108_8x1_g3", "menet", 224, "ts17", "dynamo18"),
    pytorchcv("sqnxt23_w1", "squeezenext", 224, "ts17", "ts9"),
    pytorchcv("squeezeresnet_v1_1", "squeezenet", 224, "ts17"),
    pytorchcv("igcv3_wd2", "igcv3", 224, "ts17", "dynamo18"),
    pytorchcv("mobilenet_wd4", "mobilenet_v1", 224, "ts17", "ts9-unfolded"),
    pytorchcv("fdmobilenet_wd4", "fdmobilenet", 224, "ts17"),
    pytorchcv("darknet53", "darknet", 224, "ts13"),
    pytorchcv("darknet_ref", "darknet", 224, "ts17"),
    pytorchcv("hardnet39ds", "hardnet", 224, "ts17", "dynamo18"),
    pytorchcv("hardnet68", "hardnet", 224, "ts13-unfolded"),
)

MORE_CLASSIFIERS = (
    pytorchcv("channelnet", "channelnet", 224, "ts17"),
    pytorchcv("dicenet_wd5", "dicenet", 224, "ts17", "dynamo18"),
    pytorchcv("espnetv2_wd2", "espnetv2", 224, "ts17"),
    pytorchcv("diaresnet18", "dia resnet", 224, "ts17"),
    pytorchcv("diapreresnet20_cifar10", "dia preresnet", 32, "ts17"),
    pytorchcv("drnc26", "drn", 224, "ts17"),
    pytorchcv("drnd22", "drn", 224, "ts13"),
    pytorchcv("fishnet99", "fishnet", 224, "ts17"),
    pytorchcv("fractalnet_cifar10", "fractalnet", 32, "ts17"),
    pytorchcv("irevnet301", "irevnet", 224, "ts17"),
    pytorchcv("isqrtcovresnet18", "isqrt-cov resnet", 224, "ts17"),
    pytorchcv("msdnet22_cifar10", "msdnet", 32, "ts17"),
    pytorchcv("nasnet_4a1056", "nasnet", 224, "ts17", sized=False),
    pytorchcv("darts", "darts", 224, "ts17"),
    pytorchcv("nin_cifar10", "nin", 32, "ts17"),
    pytorchcv("octresnet10_ad2", "octave resnet", 224, "ts17", "dynamo18"),
    pytorchcv("proxylessnas_mobile", "proxylessnas", 224, "ts17"),
    pytorchcv("resattnet56", "residual attention", 224, "ts17"),
    pytorchcv("resnesta18", "resnest", 224, "ts17"),
    pytorchcv("rir_cifar10", "resnet in resnet", 32, "ts17"),
    pytorchcv("ror3_56_cifar10", "ror", 32, "ts17"),
    pytorchcv("scnet50", "scnet", 224, "ts17"),
    pytorchcv("sepreresnet20_cifar10", "se preresnet", 32, "ts17"),
    pytorchcv("shakedropresnet20_cifar10", "shakedrop resnet", 32, "ts17"),
    pytorchcv("shakeshakeresnet20_2x16d_cifar10", "shakeshake resnet", 32, "ts17"),
    pytorchcv("sharesnet18", "shared-weight resnet", 224, "ts17"),
    pytorchcv("sparsenet121", "sparsenet", 224, "ts17"),
    pytorchcv("wrn20_10_1bit_cifar10", "1-bit wide resnet", 32, "ts17"),
    pytorchcv("wrn16_10_cifar10", "wide resnet", 32, "ts17"),
    pytorchcv("xdensenet40_2_k24_bc_cifar10", "x-densenet", 32, "ts17"),
    pytorchcv("resnext20_16x4d_cifar10", "cifar resnext", 32, "ts17", "dynamo18"),
    pytorchcv("bagnet9", "bagnet", 224, "ts17"),
    pytorchcv("bninception", "bn inception", 224, "ts17"),
    pytorchcv("inceptionresnetv1", "inception resnet v1", 299, "ts17"),
    pytorchcv("xception", "xception", 299, "ts17"),
    pytorchcv("resneta18", "resnet-a", 224, "ts17"),
    pytorchcv("seresnet20_cifar10", "cifar se resnet", 32, "ts9"),
    pytorchcv("vovnet27s", "vovnet", 224, "ts17"),
    pytorchcv("zfnet", "zfnet", 224, "ts17"),
    pytorchcv("regnety002", "regnet", 224, "ts17-unfolded"),
    pytorchcv("hrnet_w18_small_v1", "hrnet", 224, "ts17"),
    pytorchcv("mixnet_s", "mixnet", 224, "ts17-unfolded"),
    pytorchcv("dla46xc", "dla", 224, "ts17-unfolded"),
)

SEGMENTERS_AND_POSE = (
    pytorchcv("bisenet_resnet18_celebamaskhq", "bisenet", 128, "ts17", "dynamo18"),
    pytorchcv("cgnet_cityscapes", "cgnet", 128, "ts17"),
    pytorchcv("ctxnet_cityscapes", "contextnet", 128, "ts17"),
    pytorchcv("dabnet_cityscapes", "dabnet", 128, "ts17"),
    pytorchcv("danet_resnetd50b_cityscapes", "danet", 96, "ts17"),
    pytorchcv("deeplabv3_resnetd50b_voc", "deeplabv3", 96, "ts17"),
    pytorchcv("edanet_cityscapes", "edanet", 128, "ts17", "dynamo18"),
    pytorchcv("enet_cityscapes", "enet", 128, "dynamo18"),
    pytorchcv("erfnet_cityscapes", "erfnet", 128, "ts17", "dynamo18"),
    pytorchcv("esnet_cityscapes", "esnet", 128, "ts17"),
    pytorchcv("espcnet_cityscapes", "espnet-c", 128, "ts17"),
    pytorchcv("fastscnn_cityscapes", "fast-scnn", 192, "ts17", "dynamo18"),
    pytorchcv("fpenet_cityscapes", "fpenet", 128, "ts17"),
    pytorchcv("icnet_resnetd50b_cityscapes", "icnet", 128, "dynamo18"),
    pytorchcv("lednet_cityscapes", "lednet", 128, "ts17"),
    pytorchcv("linknet_cityscapes", "linknet", 128, "ts17"),
    pytorchcv("pspnet_resnetd50b_voc", "pspnet", 96, "ts17"),
    pytorchcv("segnet_cityscapes", "segnet", 64, "dynamo18"),
    pytorchcv("sinet_cityscapes", "sinet", 128, "ts17"),
    pytorchcv("sqnet_cityscapes", "sqnet", 128, "ts17"),
    pytorchcv("unet_cityscapes", "unet", 64, "ts17"),
    pytorchcv("centernet_resnet18_voc", "centernet", 128, "ts17", "dynamo18"),
    pytorchcv("simplepose_resnet18_coco", "simplepose", 128, "ts17"),
    pytorchcv("simplepose_mobile_mobilenet_w1_coco", "simplepose", 128, "ts17"),
    pytorchcv("lwopenpose2d_mobilenet_cmupan_coco", "openpose", 96, "ts17"),
    pytorchcv("lffd20x5s320v2_widerface", "lffd", 128, "ts17"),
    pytorchcv("prnet", "prnet", 256, "ts17"),
)
