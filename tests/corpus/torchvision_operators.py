"""Makes `import torchvision` work where its compiled operators do not load.

torchvision's wheels are built against CUDA builds of torch. Next to a CPU build its Python half is
sound, but it stops at import because `torchvision::nms` is unknown. The operators that exports
need are then declared here, with plain Python bodies good enough to trace.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height,"
    " SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # registrations live as long as these objects


def ready() -> None:
    """Declare the operators unless torchvision brings working ones. Call before importing it."""
    if _libraries or _compiled_operators_load():
        return
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    library.impl("nms", _nms, "CPU")
    library.impl("roi_align", _roi_align, "CPU")
    _libraries.append(library)

    import torchvision

    # Asked at every call of an operator.
    torchvision.extension._has_ops = _has_operators
    sys.modules["torchvision.ops.roi_align"]._has_ops = _has_operators  # type: ignore[attr-defined]


def _compiled_operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True  # nothing to mend
    for library in Path(spec.submodule_search_locations[0]).glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
        return True
    return False


def _has_operators() -> bool:
    """A function, not a lambda: torch.jit compiles it with torchvision's box operators."""
    return True


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression, O(n^2)."""
    kept: list[int] = []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i in scores.argsort(descending=True).tolist():
        if not kept:
            kept.append(i)
            continue
        rivals = boxes[kept]
        low = torch.maximum(boxes[i, :2], rivals[:, :2])
        high = torch.minimum(boxes[i, 2:], rivals[:, 2:])
        overlap = (high - low).clamp(min=0).prod(1)
        iou = overlap / (areas[i] + areas[kept] - overlap)
        if not bool((iou > iou_threshold).any()):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def _roi_align(
    features: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Bilinear samples averaged over each bin; where the ratio is adaptive, two by two of them."""
    ratio = sampling_ratio if sampling_ratio > 0 else 2
    height, width = features.shape[2:]
    rows, columns = pooled_height * ratio, pooled_width * ratio
    offset = 0.5 if aligned else 0.0
    pooled = []
    for roi in rois:
        left, top, right, bottom = (roi[1:] * spatial_scale - offset).tolist()
        y = top + (torch.arange(rows) + 0.5) * max(bottom - top, 0 if aligned else 1) / rows
        x = left + (torch.arange(columns) + 0.5) * max(right - left, 0 if aligned else 1) / columns
        lines, posts = 2 * y / max(height - 1, 1) - 1, 2 * x / max(width - 1, 1) - 1
        grid = torch.stack(torch.meshgrid(posts, lines, indexing="xy"), -1)[None]
        image = features[int(roi[0])][None]
        samples = F.grid_sample(image, grid, padding_mode="border", align_corners=True)
        pooled.append(F.avg_pool2d(samples, ratio)[0])
    shape = (0, features.shape[1], pooled_height, pooled_width)
    return torch.stack(pooled) if pooled else features.new_zeros(shape)
