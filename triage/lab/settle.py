"""Refresh batch-norm statistics on what the service will show the network.

The cheap training stages see smaller and fewer slices, so their running means do not fit full studies.
No weight changes here and no label is used.
"""

import numpy as np
import torch
from torch import nn

from triage.lab.augment import shrink
from triage.lab.data import Cases
from triage.lab.models.rrcnn import RRCNN
from triage.lab.train import Stage, as_tensor


@torch.no_grad()
def settle(network: RRCNN, training: Cases, stage: Stage, studies: int = 96, batch: int = 8) -> None:
    """Average the statistics anew over some training studies, spread over all heads."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    chosen = np.linspace(0, len(training) - 1, min(studies, len(training))).astype(int)
    slices = slice(stage.stride // 2, None, stage.stride)
    for first in range(0, len(chosen), batch):
        network.features(shrink(as_tensor(training, chosen[first : first + batch], slices), stage.size))
    for norm in norms:
        norm.momentum = 0.1
    network.eval()
