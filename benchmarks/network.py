"""A network with its inputs, as benchmarks take it from the command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import onnx

from halpc.ir.groups import Coupling
from halpc.ir.model import Model
from passes.calibration import Calibration, load_calibration
from passes.couple import couple
from passes.evaluate import Labelled, load_labelled
from passes.load import load
from passes.proto import proto_of


@dataclass(frozen=True, slots=True)
class Network:
    """A network with what is needed to prune and to judge it."""

    model: Model
    coupling: Coupling
    proto: onnx.ModelProto
    calibration: Calibration
    labelled: Labelled

    @classmethod
    def of(cls, args: argparse.Namespace) -> Network:
        """Of the arguments that `add_arguments` adds."""
        model = load(args.model)
        proto = proto_of(model.graph, model.header)
        calibration, labelled = load_calibration(args.calibration, proto), load_labelled(args.evaluate, proto)
        return cls(model, couple(model.twin), proto, calibration, labelled)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files of a network."""
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--evaluate", type=Path, required=True)
