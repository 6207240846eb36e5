"""What fine-tuning learns: the weight, scales and bias of a layer, and the range of a tensor.

Each is learned in a unit of its own (codes, steps of the output, logarithms), so that one learning rate fits all.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from edgecv.nn.fake_quant import fake_quantize, fake_quantize_bias, fake_quantize_weight, weight_codes
from edgecv.quantize.affine import Range, affine_of
from edgecv.quantize.weights import QuantizedWeight, smallest_scales

_REACH = math.log(4.0)
"""No scale or range leaves a quarter to four times what it was: training that goes astray stays finite."""


class LayerWeight(nn.Module):
    """Weight, scales and bias of one layer."""

    def __init__(self, stored: QuantizedWeight, bias: np.ndarray | None, *, output_step: float, int32: bool) -> None:
        """Start in the middle of what rounds to the draft's codes: half a step of one mind moves a weight on.

        Starting at the float weights undoes codes that were chosen with care: those that are not the nearest stand at
        the edge of another (MobileNetV2 after learned rounding: from 24.0 to 11.8 dB in one epoch).

        Args:
            stored: Codes and scales.
            bias: The float bias, or None for a layer without one.
            output_step: A small step of the layer's output, in which the bias is learned.
            int32: The bias is stored in int32, in units of both scales.
        """
        super().__init__()
        self._stored = stored
        codes = stored.codes.astype(np.float32)
        self._shape = [-1 if i == stored.axis else 1 for i in range(codes.ndim)]
        self._scale = torch.from_numpy(stored.scale.copy())
        self.steps = nn.Parameter(torch.from_numpy(codes))
        self.log_scale = nn.Parameter(torch.zeros(len(stored.scale)))
        self._bias = None if bias is None else torch.from_numpy(bias.reshape(-1).astype(np.float32))
        self.shift = None if bias is None else nn.Parameter(torch.zeros(len(stored.scale)))
        self._output_step, self._int32 = output_step, int32

    def weight(self) -> Tensor:
        """Return the float weight."""
        return self.steps * self._scale.reshape(self._shape)

    def bias(self) -> Tensor | None:
        """Return the float bias, of shape (channels,)."""
        return None if self._bias is None or self.shift is None else self._bias + self.shift * self._output_step

    def scale(self, input_scale: np.float32) -> Tensor:
        """Return the scales, kept above what an int32 bias needs."""
        scale = self._scale * torch.exp(self.log_scale)
        bias = self.bias()
        if bias is None or not self._int32:
            return scale
        return torch.maximum(scale, torch.from_numpy(smallest_scales(bias.detach().numpy(), float(input_scale))))

    def rounded_weight(self, input_scale: np.float32) -> Tensor:
        """Return the weight as stored."""
        return fake_quantize_weight(self.weight(), self.scale(input_scale), self._stored.axis)

    def rounded_bias(self, input_scale: np.float32) -> Tensor | None:
        """Return the bias as stored."""
        bias = self.bias()
        if bias is None or not self._int32:
            return bias
        return fake_quantize_bias(bias, float(input_scale) * self.scale(input_scale).detach())

    def stored(self, input_scale: np.float32) -> QuantizedWeight:
        """Return codes and scales as a draft holds them."""
        scale = self.scale(input_scale)
        codes = weight_codes(self.weight(), scale, self._stored.axis).numpy()
        return replace(self._stored, codes=codes, scale=scale.numpy())

    def project(self) -> None:
        """Keep the scales near the first ones."""
        self.log_scale.data.clamp_(-_REACH, _REACH)


class TensorRange(nn.Module):
    """The range of one tensor; an end that is not zero is learned by its logarithm, so that it keeps its sign."""

    def __init__(self, span: Range, levels: int, highest: float, *, fixed: bool, tied: bool = False) -> None:
        """Start at ``span``, in codes of 0..``levels``.

        Args:
            span: The draft's range.
            levels: The highest code.
            highest: Bound of the activation that the quantizer stands for; infinite where there is none.
            fixed: The range is not learned.
            tied: Both ends move together, so that the zero point stays.
        """
        super().__init__()
        self._levels, self._tied = levels, tied
        self._first = Range(min(span.low, 0.0), min(max(span.high, 0.0), highest))
        self._highest = highest
        self.log_ends = nn.Parameter(torch.zeros(2, dtype=torch.float64), requires_grad=not fixed)

    def rounded(self, x: Tensor) -> Tensor:
        """Return ``x`` as it looks through the codes of the range."""
        return fake_quantize(x, *self.ends(), self._levels)

    def scale(self) -> np.float32:
        """Return the step of the codes."""
        return affine_of(self.range(), self._levels).scale

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return the lower and the upper end."""
        low, high = torch.exp(self.log_ends)
        low = high if self._tied else low
        return low * self._first.low, torch.clamp(high * self._first.high, max=self._highest)

    def range(self) -> Range:
        """Return the range as a draft holds it."""
        low, high = self.ends()
        return Range(low.item(), high.item())

    def project(self) -> None:
        """Bring the ends back: near the first ones, and the upper under its bound, where it still gets a gradient."""
        self.log_ends.data.clamp_(-_REACH, _REACH)
        if self._first.high > 0 and math.isfinite(self._highest):
            self.log_ends.data[1].clamp_(max=math.log(self._highest / self._first.high) - 1e-12)
