"""A multilayer perceptron that sees its input twice, with the part that does not depend on the point folded away.

Input of the first and of the middle layer: [point, constant]; at the middle one after the activations, all divided by
sqrt(2). Within a frame only the point changes, so the constant's share of both layers is a bias, worked out once.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

Biases = tuple[Float[Tensor, "frames hidden"], Float[Tensor, "frames hidden"]]
"""Of the first and of the middle layer: all that does not depend on the point."""


class SkipMLP(nn.Module):
    """`layers` hidden layers of one width; the input again at hidden layer `layers // 2`."""

    def __init__(
        self,
        d_point: int,
        d_constant: int,
        hidden: int,
        layers: int,
        d_out: int,
        activation: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.d_point = d_point
        self.skip = layers // 2
        self.activation = activation
        d_in = d_point + d_constant
        widths = [d_in, *[hidden] * layers, d_out]
        self.layers = nn.ModuleList(
            nn.Linear(a + (d_in if i == self.skip else 0), b)
            for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )

    def _linear(self, i: int) -> nn.Linear:
        return cast(nn.Linear, self.layers[i])

    def folded(self, constant: Float[Tensor, "frames d_constant"]) -> Biases:
        """The constant part of the input as biases."""
        first, middle = self._linear(0), self._linear(self.skip)
        d = constant.shape[1]
        return (
            nn.functional.linear(constant, first.weight[:, self.d_point :], first.bias),
            nn.functional.linear(constant / math.sqrt(2), middle.weight[:, middle.in_features - d :], middle.bias),
        )

    def forward(
        self, point: Float[Tensor, "frames points d_point"], biases: Biases
    ) -> Float[Tensor, "frames points d_out"]:
        """The network at points; differentiable any number of times."""
        first, middle = biases
        hidden = point @ self._linear(0).weight[:, : self.d_point].T + first[:, None]
        for i in range(1, len(self.layers)):
            layer, hidden = self._linear(i), self.activation(hidden)
            if i == self.skip:
                live = torch.cat([hidden, point], -1) / math.sqrt(2)
                hidden = live @ layer.weight[:, : live.shape[-1]].T + middle[:, None]
            else:
                hidden = layer(hidden)
        return hidden
