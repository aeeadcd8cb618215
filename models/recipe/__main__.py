"""`python -m recipe --out DIR`: trains the three networks and scores their channels, one after the other."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import importance
from .train import default, pick_device, save, train

# Steps of each network; and its share of --minutes, after which it ends its schedule early.
PLAN = {"resnet18": (20000, 0.3), "mobilenetv2": (20000, 0.4), "resnet56": (20000, 0.3)}


def main() -> None:
    """Reads the options and runs the plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, help="steps of every network, instead of the recipe's own")
    parser.add_argument("--minutes", type=float, default=6000.0, help="cap on the time of all trainings together")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--minibatches", type=int, default=importance.MINIBATCHES, help="for importance")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    device = pick_device(options.device)
    for name, (steps, share) in PLAN.items():
        recipe = default(name, options.steps or steps, share * options.minutes, options.batch)
        network, record = train(recipe, device)
        save(network, record, options.out)
        importance.write(name, options.out, device, options.minibatches)


if __name__ == "__main__":
    main()
