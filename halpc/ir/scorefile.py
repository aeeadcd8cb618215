"""Scores beside the budgets of a sweep that are finished, so that one that goes on does not score again.

{"format": "halpc.scores", "version": 1, "asked": {…}, "source": …, "unscored": […], "scores": {group: […]},
 "curves": {group: […]}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from halpc.errors import InputError
from halpc.ir.saliency import Saliency, Scores

FORMAT, VERSION = "halpc.scores", 1


def scores_json(saliency: Saliency, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The file's content; `asked` as in `Frontier`."""
    return {
        "format": FORMAT, "version": VERSION, "asked": dict(asked), "source": saliency.source,
        "unscored": list(saliency.unscored),
        "scores": {name: scores.tolist() for name, scores in saliency.scores.items()},
        "curves": {name: curve.tolist() for name, curve in saliency.curves.items()},
    }  # fmt: skip


def read_scores(path: Path, asked: Mapping[str, Any]) -> Saliency | None:
    """The scores in the file; None where there is none, or it is of something else than what is `asked`.

    Raises:
        InputError: damaged, or of another format or version.
    """
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT or data["version"] != VERSION:
            raise InputError(f"{path}: expected format {FORMAT} version {VERSION}")
        if data["asked"] != dict(asked):
            return None
        scores, curves = ({str(k): _numbers(v) for k, v in data[part].items()} for part in ("scores", "curves"))
        return Saliency(scores, str(data["source"]), tuple(map(str, data["unscored"])), curves)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not a readable {FORMAT} file ({type(error).__name__}: {error})") from error


def _numbers(entries: Any) -> Scores:
    """A list of scores: finite, none below zero."""
    found = np.array(entries, dtype=np.float64)
    if found.ndim != 1 or not np.isfinite(found).all() or (found < 0).any():
        raise ValueError("expected lists of finite numbers, none below zero")
    return found
