"""Real exports, made here and now: each compiles to half of its MACs and equals the masked original.

A row runs where its library is installed. `python -m tests.corpus.coverage` does the same for a folder of files.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from tests.corpus import torchvision_operators
from tests.corpus.coverage import row as compiled_and_judged
from tests.corpus.export import export
from tests.corpus.row import Row, Variant
from tests.corpus.table import ROWS

pytestmark = [pytest.mark.slow, pytest.mark.torch]

MODULES = {"smp": "segmentation_models_pytorch", "handmade": "torch"}
EXPORTS = [
    "handmade/crnn/ts11-unfolded",
    "handmade/einsum_attention/dynamo20-dynsize",
    "handmade/grid_sample/dynamo20",
    "handmade/grouped_shuffle/ts17+qdq-channel",
    "handmade/lenet_flatten/ts17+qoperator",
    "handmade/pointnet/dynamo18-dynsize",
    "handmade/resnet20_pad/dynamo18-dynbatch",
    "handmade/shared_head/ts13-dynbatch",
    "handmade/space_to_depth/ts13-dynsize",
    "handmade/srresnet/ts11-unfolded",
    "handmade/unet_transposed/ts9",
    "handmade/wavenet/ts17+fp16",
    "torchvision/densenet121/dynamo18-dynbatch",
    "torchvision/efficientnet_b0/ts17",
    "torchvision/googlenet/dynamo18",
    "torchvision/mnasnet0_5/ts9-unfolded",
    "torchvision/mobilenet_v2/ts17+qoperator",
    "torchvision/mobilenet_v3_small/ts13-dynsize",
    "torchvision/regnet_y_400mf/dynamo18-dynbatch",
    "torchvision/resnet18/ts17+qdq-channel",
    "torchvision/shufflenet_v2_x0_5/dynamo18-dynsize",
    "torchvision/squeezenet1_1/ts9",
    "torchvision/lraspp_mobilenet_v3_large/dynamo18-dynsize",
    "timm/coat_tiny/dynamo18",
    "timm/convnext_atto/ts13-dynbatch",
    "timm/cspresnet50/ts17",
    "timm/dpn68/ts9",
    "timm/edgenext_xx_small/ts13-dynbatch",
    "timm/efficientnet_b0_gn/dynamo21",
    "timm/ghostnet_100/ts17-unfolded",
    "timm/hrnet_w18_small/dynamo18-dynbatch",
    "timm/levit_128s/ts17-unfolded",
    "timm/mixnet_s/dynamo18",
    "timm/mobilevit_xxs/ts17-dynbatch",
    "timm/pvt_v2_b0/dynamo18",
    "timm/regnety_002/ts17+qoperator",
    "timm/repvgg_a0/ts17-unfolded",
    "timm/resnest14d/ts11-unfolded",
    "timm/rexnet_100/ts11",
    "timm/skresnet18/ts13-dynbatch",
    "timm/swin_tiny_patch4_window7_224/ts17-dynbatch",
    "timm/vit_tiny_patch16_224/dynamo23",
    "pytorchcv/densenet40_k12_cifar10/ts11-unfolded",
    "pytorchcv/hardnet39ds/ts9-unfolded",
    "pytorchcv/pyramidnet110_a48_cifar10/dynamo18",
    "pytorchcv/resnet20_cifar10/ts9-unfolded",
    "pytorchcv/shufflenet_g3_wd4/dynamo18-dynbatch",
    "smp/fpn_resnet18/ts17-dynsize",
    "smp/pspnet_resnet18/dynamo18-dynbatch",
    "smp/unet_resnet18/ts13-dynsize",
    "ultralytics/yolov8n/ts17-unfolded",
    "ultralytics/yolo11n/ts13-dynsize",
    "ultralytics/yolov3-tiny/ts13",
    "transformers/bert/ts14-dynsize",
    "transformers/gpt2/dynamo18",
    "transformers/llama/dynamo18-dynsize",
    "transformers/segformer/ts13-dynsize",
    "transformers/whisper_encoder/dynamo18",
    "monai/basicunet/dynamo18",
    "monai/dynunet/ts17-dynsize",
    "monai/unet_batchnorm/ts17-unfolded",
    "diffusers/autoencoder_kl/ts13-dynsize",
    "diffusers/unet2d_condition/ts17-dynbatch",
]
MOST = 0.6
"""Every network above keeps at most this share of its MACs."""


@pytest.fixture(scope="module", autouse=True)
def exporting() -> None:
    """The exporters' surroundings, as `tests.corpus.export` sets them."""
    torchvision_operators.ready()
    torch.backends.mha.set_fastpath_enabled(False)


@pytest.mark.parametrize("export_of", EXPORTS)
def test_a_real_export_compiles_to_the_masked_original(export_of: str, tmp_path: Path) -> None:
    library, name, text = export_of.split("/")
    if find_spec(MODULES.get(library, library)) is None:
        pytest.skip(f"{library} is not installed")
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the networks and the exporter
        export(_row(library, name), Variant.parse(text), path)
    found = compiled_and_judged(path)
    assert found["status"] == "ok", found["why"]
    assert found["sound"], f"differs by {found['error']:.1e}, allowed {found['tolerance']:.1e}"
    assert found["macs_left"] <= MOST, found["whole"]
    assert not found["unexplained"]


def _row(library: str, name: str) -> Row:
    (row,) = (each for each in ROWS if (each.library, each.name) == (library, name))
    return row
