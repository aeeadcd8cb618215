"""From checkpoints to what `models/` ships: ONNX files, data sets, importance files, README.

    python -m recipe.ship --checkpoints DIR

DIR holds NAME.pt, NAME.importance.npz and training.json, as `python -m recipe` wrote them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from .export import FILES, export_all
from .glyphs import GLYPHS, HERE, clans
from .images import HARDNESS, fixed_set
from .networks import NETWORKS
from .train import TEST_SEED

MODELS = HERE.parent
CALIBRATION, TEST = 1000, 4000
CALIBRATION_SEED = 7000
FIRST_COMMAND = "apt-get install --no-install-recommends $(sed '/^#/d; s/^.*: //' recipe/fonts.txt)"
COMMANDS = [
    FIRST_COMMAND,
    "python -m recipe.glyphs",
    "python -m recipe.train --network resnet18 --minutes 14 --batch 128 --out runs",
    "python -m recipe.importance --network resnet18 --minibatches 50 --checkpoints runs",
    "python -m recipe.train --network resnet56 --minutes 10 --batch 128 --out runs",
    "python -m recipe.importance --network resnet56 --minibatches 30 --checkpoints runs",
    "python -m recipe.train --network mobilenetv2 --minutes 27 --batch 128 --out runs",
    "python -m recipe.importance --network mobilenetv2 --minibatches 20 --checkpoints runs",
    "python -m recipe.ship --checkpoints runs",
]


def write_data(out: Path) -> None:
    """calibration.npz of training families, test.npz of unseen ones."""
    images, _ = fixed_set(CALIBRATION, test=False, seed=CALIBRATION_SEED)
    np.savez_compressed(out / "calibration.npz", input=images)
    images, labels = fixed_set(TEST, test=True, seed=TEST_SEED)
    np.savez_compressed(out / "test.npz", input=images, labels=labels)


def top1(model: Path, data: Path) -> float:
    """Share of right answers through onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    with np.load(data) as file:
        images, labels = file["input"], file["labels"]
    answers = [session.run(None, {"input": images[at : at + 500]})[0].argmax(1) for at in range(0, len(images), 500)]
    return float((np.concatenate(answers) == labels).mean())


def macs(path: Path) -> int:
    """Multiply-accumulates of convolutions and Gemm for one image."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    sides = {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim[2:]] for info in model.graph.value_info
    }
    total = 0
    for node in model.graph.node:
        if node.op_type in {"Conv", "Gemm"}:
            total += math.prod(weights[node.input[1]]) * math.prod(sides.get(node.output[0], []))
    return total


def parameters(path: Path) -> int:
    """Number of trained values in the file."""
    return sum(math.prod(tensor.dims) for tensor in onnx.load(path).graph.initializer)


def network_rows(out: Path, records: dict[str, dict[str, Any]]) -> str:
    """The README's table of ONNX files."""
    rows = []
    for file, (name, _) in FILES.items():
        path = out / file
        cells = [
            f"`{file}`",
            f"{top1(path, out / 'test.npz'):.2%}",
            f"{records[name]['log'][-1]['train_families']:.2%}",
            f"{parameters(path):,}",
            f"{macs(path) / 1e6:.1f} M",
            f"{path.stat().st_size / 1e6:.2f} MB",
            f"`{name}.importance.npz`",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def training_rows(records: dict[str, dict[str, Any]]) -> str:
    """The README's table of trainings."""
    rows = []
    for name, record in records.items():
        last = record["log"][-1]
        cells = [
            name,
            record["device"],
            record["torch"],
            last["step"],
            record["batch"],
            f"{record['images']:,}",
            record["hardness"],
            record["importance"]["minibatches"],
        ]
        rows.append(f"| {' | '.join(map(str, [*cells, last['minutes'], last['loss']]))} |")
    return "\n".join(rows)


def checksums(out: Path) -> str:
    """sha256 and size of every binary file, as sha256sum prints them."""
    names = {file.name: file for file in sorted([*out.glob("*.onnx"), *out.glob("*.npz")])}
    names |= {"recipe/glyphs.npz": GLYPHS}
    lines = [f"    {hashlib.sha256(file.read_bytes()).hexdigest()}  {name}" for name, file in names.items()]
    sizes = f"{len(names)} files, {sum(file.stat().st_size for file in names.values()) / 1e6:.1f} MB together."
    return "\n".join([*lines, "", sizes])


def write_readme(out: Path, records: dict[str, dict[str, Any]]) -> None:
    """Fills README.template.md."""
    with np.load(GLYPHS) as file:
        is_test, family, debian = file["is_test"], file["family"], str(file["debian"])
    packages = sorted(package for group in clans().values() for package in group)
    template = string.Template((HERE / "README.template.md").read_text())
    text = template.substitute(
        networks=network_rows(out, records),
        onnxruntime=onnxruntime.__version__,
        calibration=f"{CALIBRATION:,}",
        test=f"{TEST:,}",
        train_families=len(set(family[~is_test])),
        test_families=len(set(family[is_test])),
        faces=len(family),
        packages=len(packages),
        debian=debian,
        importance_batch=records["resnet18"]["importance"]["batch"],
        commands="\n".join(COMMANDS),
        trainings=training_rows(records),
        fonts=", ".join(f"`{package}`" for package in packages),
        checksums=checksums(out),
    )
    (out / "README.md").write_text(text)


def main() -> None:
    """Exports, copies importance, makes the sets, writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=MODELS)
    options = parser.parse_args()
    out = options.out
    records = json.loads((options.checkpoints / "training.json").read_text())
    for name, record in records.items():
        record["importance"] = json.loads((options.checkpoints / f"{name}.importance.json").read_text())
        if record["hardness"] != HARDNESS:
            raise SystemExit(f"{name} was trained at hardness {record['hardness']}, the sets are made at {HARDNESS}")
    export_all(options.checkpoints, out)
    for name in NETWORKS:
        shutil.copyfile(options.checkpoints / f"{name}.importance.npz", out / f"{name}.importance.npz")
    write_data(out)
    write_readme(out, records)
    print((out / "README.md").read_text())


if __name__ == "__main__":
    main()
