"""Which inputs a convolution's output position sees: im2col for sampled positions, any rank, both directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of a Conv or ConvTranspose, one entry per spatial axis.

    Attributes:
        kernel, strides, dilations: as in the operator.
        pads: what was said at the beginnings of the axes; None where `auto_pad` or `output_shape` decides.
        lower: whether an odd padding puts its extra entry at the beginning.
        transposed: ConvTranspose.
        output_padding: of a ConvTranspose.

    Source: ONNX operators Conv and ConvTranspose.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | None
    lower: bool
    transposed: bool
    output_padding: tuple[int, ...]

    @property
    def taps(self) -> int:
        """Number of kernel positions."""
        return math.prod(self.kernel)

    def gather(self, data: NDArray[Any], sizes: Sequence[int], picks: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the kernel sees at chosen output positions.

        Args:
            data: [batch, channels, *spatial].
            sizes: spatial sizes of the output.
            picks: int64[batch, chosen], flat output positions per sample.

        Returns:
            float32[batch · chosen, taps, channels], zero where the kernel hangs over the edge.
        """
        spatial = data.shape[2:]
        batch, channels = data.shape[:2]
        flat, inside = self._sources(spatial, sizes, picks)
        flat += (np.arange(batch) * math.prod(spatial))[:, np.newaxis, np.newaxis]
        last = np.ascontiguousarray(np.moveaxis(data, 1, -1), dtype=np.float32).reshape(-1, channels)
        rows = last[np.where(inside, flat, 0).reshape(-1)]
        rows[~inside.reshape(-1)] = 0
        return rows.reshape(-1, self.taps, channels)

    def _sources(
        self, spatial: Sequence[int], sizes: Sequence[int], picks: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Flat input positions int64[batch, chosen, taps], and which of them exist."""
        outputs = np.unravel_index(picks, tuple(sizes))
        taps = np.unravel_index(np.arange(self.taps), self.kernel)
        flat = np.zeros((*picks.shape, self.taps), dtype=np.int64)
        inside = np.ones(flat.shape, dtype=np.bool_)
        for axis, (length, begin) in enumerate(zip(spatial, self._begins(spatial, sizes), strict=True)):
            stride, reach = self.strides[axis], taps[axis] * self.dilations[axis]
            output = outputs[axis][..., np.newaxis]
            if self.transposed:
                source, rest = np.divmod(output + begin - reach, stride)
                inside &= rest == 0
            else:
                source = output * stride + reach - begin
            inside &= (source >= 0) & (source < length)
            flat = flat * length + source
        return flat, inside

    def _begins(self, spatial: Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
        """Padding at the beginning of each axis."""
        if self.pads is not None:
            return self.pads
        begins = []
        for axis, (length, size) in enumerate(zip(spatial, sizes, strict=True)):
            span = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            if self.transposed:
                total = self.strides[axis] * (length - 1) + self.output_padding[axis] + span - size
            else:
                total = max((size - 1) * self.strides[axis] + span - length, 0)
            begins.append(total - total // 2 if self.lower else total // 2)
        return tuple(begins)


def window_of(node: onnx.NodeProto, kernel: Sequence[int]) -> Window:
    """Geometry of a Conv or ConvTranspose `node` whose weight has spatial sizes `kernel`."""
    said = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    rank, transposed = len(kernel), node.op_type == "ConvTranspose"
    auto = said.get("auto_pad", b"NOTSET").decode()
    computed = auto.startswith("SAME") or "output_shape" in said
    pads = None if computed else tuple(said.get("pads", (0,) * 2 * rank))[:rank]
    if auto == "VALID":
        pads = (0,) * rank
    return Window(
        kernel=tuple(kernel),
        strides=tuple(said.get("strides", (1,) * rank)),
        dilations=tuple(said.get("dilations", (1,) * rank)),
        pads=pads,
        lower=auto != "SAME_UPPER" if transposed else auto == "SAME_LOWER",
        transposed=transposed,
        output_padding=tuple(said.get("output_padding", (0,) * rank)),
    )
