"""The one import of torchao: on a CPU it complains of its CUDA libraries, which nobody asked for."""

from __future__ import annotations

import logging

_NOISY = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
_levels = [logger.level for logger in _NOISY]
for _logger in _NOISY:
    _logger.setLevel(logging.ERROR)
try:
    from torchao.quantization.pt2e import (
        FakeQuantize,
        MovingAverageMinMaxObserver,
        MovingAveragePerChannelMinMaxObserver,
    )
finally:
    for _logger, _level in zip(_NOISY, _levels, strict=True):
        _logger.setLevel(_level)

__all__ = ["FakeQuantize", "MovingAverageMinMaxObserver", "MovingAveragePerChannelMinMaxObserver"]
