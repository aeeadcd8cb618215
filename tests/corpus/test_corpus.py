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
    "handmade/standardised_weights/ts17-unfolded",
    "handmade/einsum_attention/dynamo20-dynsize",
    "handmade/grid_sample/dynamo20",
    "handmade/grouped_shuffle/ts17+qdq-channel",
    "handmade/lenet_flatten/ts17+qoperator",
    "handmade/pointnet/ts13-dynsize",
    "handmade/resnet20_pad/ts11-unfolded",
    "handmade/shared_head/ts13-dynbatch",
    "handmade/space_to_depth/ts13-dynsize",
    "handmade/srresnet/ts11-unfolded",
    "handmade/unet_transposed/ts9",
    "handmade/wavenet/ts17+fp16",
    "torchvision/deeplabv3_mobilenet_v3_large/dynamo18",
    "torchvision/efficientnet_b0/ts17+qdq-channel",
    "torchvision/googlenet/dynamo18",
    "torchvision/shufflenet_v2_x1_0/ts13-unfolded",
    "torchvision/mobilenet_v2/ts17+qoperator",
    "torchvision/ssdlite320_mobilenet_v3_large_heads/dynamo18",
    "torchvision/regnet_y_400mf/dynamo18",
    "torchvision/resnet18/ts17+qdq-weights",
    "torchvision/shufflenet_v2_x0_5/dynamo18-dynsize",
    "torchvision/squeezenet1_1/ts9",
    "torchvision/lraspp_mobilenet_v3_large/dynamo18-dynsize",
    "timm/mobilevitv2_050/dynamo18",
    "timm/convnext_atto/ts17-dynsize",
    "timm/seresnet18/ts9",
    "timm/dpn68/dynamo18-dynbatch",
    "timm/resnet18/ts17-dynsize",
    "timm/efficientnet_b0_gn/dynamo21",
    "timm/ghostnet_100/ts17-unfolded",
    "timm/hrnet_w18_small/dynamo18-dynbatch",
    "timm/rexnetr_100/ts17-unfolded",
    "timm/nextvit_small/dynamo18",
    "timm/mobilevit_xxs/dynamo18-dynbatch",
    "timm/visformer_tiny/dynamo18",
    "timm/regnety_002/ts17+qoperator",
    "timm/repvgg_a0/dynamo18",
    "timm/resnest14d/ts11-unfolded",
    "timm/rexnet_100/ts11",
    "timm/skresnet18/dynamo18",
    "timm/test_maxvit/ts14-dynbatch",
    "timm/vit_tiny_patch16_224/dynamo18-dynbatch",
    "pytorchcv/densenet40_k12_cifar10/ts11-unfolded",
    "pytorchcv/hardnet39ds/ts9-unfolded",
    "pytorchcv/menet108_8x1_g3/dynamo18",
    "pytorchcv/resnet20_cifar10/ts17+qdq-channel",
    "pytorchcv/shufflenet_g3_wd4/ts9-unfolded",
    "smp/fpn_resnet18/dynamo18",
    "smp/pspnet_resnet18/dynamo18-dynbatch",
    "smp/unet_resnet18/ts13-dynsize",
    "ultralytics/yolov8n/ts17-unfolded",
    "ultralytics/yolo11n/ts13-dynsize",
    "ultralytics/yolov3-tiny/ts13",
    "transformers/bert/dynamo18-dynbatch",
    "transformers/gpt2/ts14-dynsize",
    "transformers/llama/dynamo23",
    "transformers/distilbert/ts14-dynsize",
    "transformers/phi3/dynamo18",
    "monai/segresnet/dynamo21",
    "monai/dynunet/ts17-dynsize",
    "monai/unet_batchnorm/ts17-unfolded",
    "diffusers/autoencoder_kl/ts17-unfolded",
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
        try:
            export(_row(library, name), Variant.parse(text), path)
        except Exception as error:  # any library or exporter may raise anything: no file, nothing to judge
            pytest.skip(f"not exported: {type(error).__name__}: {str(error)[:200]}")
    found = compiled_and_judged(path)
    assert found["status"] == "ok", found["why"]
    assert found["sound"], f"differs by {found['error']:.1e}, allowed {found['tolerance']:.1e}"
    assert found["macs_left"] <= MOST, found["whole"]
    assert not found["unexplained"]


def _row(library: str, name: str) -> Row:
    (row,) = (each for each in ROWS if (each.library, each.name) == (library, name))
    return row
