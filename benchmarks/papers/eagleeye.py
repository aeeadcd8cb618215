"""Random width plans, the best of which is chosen by how the network does once its statistics were estimated anew.

Candidates are drawn at random and scaled to the budget. Of each, one pass over calibration inputs brings mean and
deviation of every convolution's output to what they are in the original: in a network whose BatchNorms are folded,
that is what estimating them anew comes to. Without labels, the winner is who agrees most often with the original.

Source: Li et al., "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning", arXiv 2007.02491.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.papers.rules import proportional, random_shares, selection
from benchmarks.papers.torch_graph import TorchGraph
from halpc.ir.problem import Problem, Selection
from halpc.job import Job
from passes.proto import proto_of
from passes.slim import plan_for, slim

CANDIDATES, IMAGES = 100, 128
EPSILON = 1e-12  # added to variances


class EagleEye:
    """A rule: the winner is found at the first problem and only scaled to the corrected ones after it."""

    def __init__(self, job: Job, candidates: int = CANDIDATES, images: int = IMAGES) -> None:
        """Statistics of the unpruned network on the first `images` calibration inputs."""
        self.job, self.candidates = job, candidates
        original = TorchGraph(proto_of(job.model.graph, job.model.header))
        self.images = torch.from_numpy(job.calibration.inputs[original.input][:images].copy())
        self.moments: dict[str, tuple[Tensor, Tensor]] = {}
        with torch.no_grad():
            self.classes = original(self.images, self._note).argmax(1)
        self.shares: dict[str, float] | None = None
        self.agreements: list[float] = []

    def __call__(self, problem: Problem) -> Selection:
        """The winner at this budget."""
        if self.shares is None:
            drawn = [random_shares(problem, seed) for seed in range(self.candidates)]
            self.agreements = [self.agreement(proportional(problem, shares)) for shares in drawn]
            self.shares = drawn[int(np.argmax(self.agreements))]
        return selection(problem, proportional(problem, self.shares), "eagleeye")

    def agreement(self, widths: dict[str, int]) -> float:
        """Share of the inputs that the network at `widths` puts into the original's class."""
        job = self.job
        self.masks = {name: job.saliency.mask(name, width) for name, width in widths.items()}
        plan = plan_for(job.model, job.coupling, self.masks)
        self.keep = plan.keep
        network = TorchGraph(proto_of(slim(job.model, job.coupling, plan), job.model.header))
        self.weights = {node.output[0]: node.input[1] for node, _ in network.nodes if node.op_type == "Conv"}
        with torch.no_grad():
            return float((network(self.images, self._renew).argmax(1) == self.classes).float().mean())

    def _note(self, name: str, result: Tensor) -> Tensor:
        self.moments[name] = (result.mean((0, 2, 3)), result.std((0, 2, 3)))
        return result

    def _renew(self, name: str, result: Tensor) -> Tensor:
        mean, deviation = self.moments[name]
        kept = self.keep.get(self.weights[name], {}).get(0)
        if kept is not None:
            mean, deviation = mean[torch.from_numpy(kept)], deviation[torch.from_numpy(kept)]
        return F.batch_norm(result, None, None, deviation, mean, training=True, eps=EPSILON)
