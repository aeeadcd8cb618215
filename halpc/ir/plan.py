"""The plan: which channels stay, in a form that can be replayed onto a framework's own checkpoint.

{"format": "halpc.plan", "version": 1, "model_sha256": …,
 "groups": [{"name", "size", "kept": […]}], "keep": {initializer: {axis: [kept indices]}},
 "derived": {tensor: {"from": [initializers], "why": …, "keep": {axis: [kept indices]}}}}

`keep` names weights of the file. A weight that the file computes from others in a way that no slice of them can
follow is under `derived`, and in `keep` under the computed tensor's name unless it is all zeros.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from halpc.errors import PlanError
from halpc.ir.dims import Mask

FORMAT, VERSION = "halpc.plan", 1
WIDEST = 2**24  # channels of a group


@dataclass(frozen=True, slots=True)
class Derived:
    """A sliced tensor that is no weight of the file.

    Attributes:
        sources: weights of the file that it was computed from.
        why: no slices of them say the same.
        keep: its axis → kept indices.
    """

    sources: tuple[str, ...]
    why: str
    keep: Mapping[int, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Plan:
    """Kept channels per group, and what that means for every initializer.

    Attributes:
        model_sha256: the model it belongs to.
        masks: group name → bool[size].
        keep: initializer → axis → kept indices (int64, ascending); axes that stay whole are absent.
        removed_nodes: nodes that disappear because a branch vanished.
        derived: tensors that load computed, in a plan that is in the file's words (`passes/replay.py`).
    """

    model_sha256: str
    masks: Mapping[str, Mask]
    keep: Mapping[str, Mapping[int, NDArray[np.int64]]]
    removed_nodes: tuple[str, ...] = ()
    derived: Mapping[str, Derived] = field(default_factory=dict)

    @property
    def widths(self) -> dict[str, int]:
        """Group name → channels that stay."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}

    def check_groups(self, sizes: Mapping[str, int], path: Path) -> None:
        """That the plan, read from `path`, is of a model with these groups; their weights may be others.

        Args:
            sizes: channels of every group of the model that may shrink.

        Raises:
            PlanError: it has a group that the model lacks, or of another size.
        """
        for name, mask in self.masks.items():
            if sizes.get(name) != mask.size:
                found = f"of {sizes[name]}" if name in sizes else "none of that name that may shrink"
                raise PlanError(
                    f"--resume {path}: the plan is of another network: it has a group {name!r} of {mask.size} channels,"
                    f" this model {found}. Give the network that the plan was made for, whatever its weights are now,"
                    " with the same --freeze and --allow-renormalisation; one that is pruned already is compiled"
                    " without --resume"
                )

    def check_vanished(self, vanishing: Collection[str], path: Path) -> None:
        """That what the plan, read from `path`, leaves nothing of may vanish.

        Raises:
            PlanError: naming a group that may not.
        """
        for name, mask in self.masks.items():
            if not mask.any() and name not in vanishing:
                raise PlanError(
                    f"--resume {path}: the plan keeps no channels of group {name!r}, which cannot vanish here; leave"
                    " out --no-vanish, or take the plan.json that compile wrote for this network"
                )

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model_sha256": self.model_sha256,
            "groups": [
                {"name": name, "size": int(mask.size), "kept": np.flatnonzero(mask).tolist()}
                for name, mask in self.masks.items()
            ],
            "keep": {tensor: _axes_as_json(axes) for tensor, axes in self.keep.items()},
            "derived": {
                tensor: {"from": list(d.sources), "why": d.why, "keep": _axes_as_json(d.keep)}
                for tensor, d in self.derived.items()
            },
            "removed_nodes": list(self.removed_nodes),
        }


def _axes_as_json(axes: Mapping[int, NDArray[np.int64]]) -> dict[str, list[int]]:
    return {str(axis): kept.tolist() for axis, kept in axes.items()}


def _axes(data: Mapping[str, list[int]]) -> dict[int, NDArray[np.int64]]:
    return {int(axis): np.asarray(kept, dtype=np.int64) for axis, kept in data.items()}


def read_plan(path: Path) -> Plan:
    """A plan from its file.

    Raises:
        PlanError: missing, damaged, or of another format or version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path}: not JSON; expected a {FORMAT} file") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
        raise PlanError(f"{path}: expected format {FORMAT} version {VERSION}; write it with this version of halpc")
    try:
        groups = [(str(g["name"]), _mask(int(g["size"]), g["kept"])) for g in data["groups"]]
        masks = dict(groups)
        if len(masks) < len(groups):
            raise ValueError("a group is there twice")
        keep = {tensor: _axes(axes) for tensor, axes in data["keep"].items()}
        derived = {
            tensor: Derived(tuple(d["from"]), str(d["why"]), _axes(d["keep"]))
            for tensor, d in data.get("derived", {}).items()
        }
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise PlanError(
            f"{path}: damaged plan ({type(error).__name__}: {error}); take the plan.json that compile wrote"
        ) from error
    return Plan(str(data.get("model_sha256", "")), masks, keep, tuple(data.get("removed_nodes", ())), derived)


def _mask(size: int, kept: list[int]) -> Mask:
    odd = len(set(kept)) < len(kept) or any(type(i) is not int or not 0 <= i < size for i in kept)
    if not 0 < size <= WIDEST or odd:
        raise ValueError(f"a group of {size} channels cannot keep {kept[:8]}")
    mask = np.zeros(size, dtype=np.bool_)
    mask[np.asarray(kept, dtype=np.int64)] = True
    return mask
