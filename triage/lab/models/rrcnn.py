"""The recurrent residual convolutional network of Do et al., Diagnostics 2020;10:803, section 2.5.

Five convolution blocks look at each slice alone; one LSTM reads the slices from caudal to cranial; its
last state decides. What the paper leaves open is set as in docs/science.md: two or three convolutions a
block as in VGG16, 7x7 in the first block, a 1x1 projection as the skip, batch norm, 256 -> 256 -> 2 with
dropout. 5.2 million parameters, 15.4 GMAC a study.

Two auxiliary heads are trained beside the answer and are not exported: the infarcted share of each
slice, and which of the ten regions are hit.
"""

from itertools import pairwise
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS: Final = (32, 64, 128, 256, 256)
CONVOLUTIONS: Final = (2, 2, 3, 3, 3)
KERNELS: Final = (7, 3, 3, 3, 3)
HIDDEN: Final = 256
REGIONS: Final = 10
# A slice's last map is 2 x 2 for inputs of 64 to 95 pixels a side.
LAST_MAP: Final = 4
ASPECTS_7_TO_10: Final = 0
ASPECTS_1_TO_6: Final = 1


class Prediction(NamedTuple):
    """logits_N2 in class order (7-10, 1-6); share_NZ of each slice in tenths; region_logits_N10."""

    logits_N2: Tensor
    share_NZ: Tensor
    region_logits_N10: Tensor


class Block(nn.Module):
    """(N, in, Y, X) -> (N, out, Y/2, X/2): convolutions, a projected skip, ReLU, max-pool."""

    def __init__(self, in_channels: int, out_channels: int, convolutions: int, kernel: int) -> None:
        super().__init__()
        channels = [in_channels] + [out_channels] * convolutions
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False) for a, b in pairwise(channels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(out_channels) for _ in range(convolutions))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def maps(self, x_NCYX: Tensor) -> Tensor:
        """The block's maps before pooling, all >= 0."""
        h = x_NCYX
        last = len(self.convolutions) - 1
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            h = norm(convolution(h))
            if i < last:
                h = functional.relu(h, inplace=True)
        return functional.relu(h + self.skip(x_NCYX))

    def forward(self, x_NCYX: Tensor) -> Tensor:
        return functional.max_pool2d(self.maps(x_NCYX), 2)


class RRCNN(nn.Module):
    """(N, Z, Y, X) in 0..255 -> Prediction. Any number of slices; 64 to 95 pixels a side, 80 when serving."""

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        channels = (1, *WIDTHS)
        self.blocks = nn.ModuleList(
            Block(channels[i], channels[i + 1], CONVOLUTIONS[i], KERNELS[i]) for i in range(len(WIDTHS))
        )
        features = WIDTHS[-1] * LAST_MAP
        self.lstm = nn.LSTM(features, HIDDEN, batch_first=True)
        self.dense = nn.Linear(HIDDEN, HIDDEN)
        self.dropout = nn.Dropout(dropout)
        self.answer = nn.Linear(HIDDEN, 2)
        self.slice_share = nn.Linear(features, 1)
        self.regions = nn.Linear(HIDDEN, REGIONS)

    def slices(self, x_NZYX: Tensor) -> Tensor:
        """Every slice as an image of its own, (N*Z, 1, Y, X), scaled to about -1..1."""
        n, z, y, x = x_NZYX.shape
        return normalised(x_NZYX).reshape(n * z, 1, y, x)

    def features(self, x_NZYX: Tensor) -> Tensor:
        """(N, Z, 1024): what the convolutions say about each slice."""
        h = self.slices(x_NZYX).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h)
        return h.flatten(1).view(x_NZYX.shape[0], x_NZYX.shape[1], -1)

    def forward(self, x_NZYX: Tensor) -> Prediction:
        features_NZF = self.features(x_NZYX)
        states_NZH, _ = self.lstm(features_NZF)
        last_NH = states_NZH[:, -1]
        hidden_NH = self.dropout(functional.relu(self.dense(last_NH)))
        return Prediction(
            logits_N2=self.answer(hidden_NH),
            share_NZ=functional.softplus(self.slice_share(features_NZF).squeeze(-1)),
            region_logits_N10=self.regions(last_NH),
        )


def normalised(x: Tensor) -> Tensor:
    """0..255 -> -1..1."""
    return x / 127.5 - 1.0
