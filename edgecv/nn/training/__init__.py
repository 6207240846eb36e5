"""Training: one loop for plain training, distillation and the healing after pruning or factorizing.

:func:`edgecv.nn.training.loop.fit` runs it, an :class:`edgecv.nn.training.objective.Objective` says what is minimised.
"""

from edgecv.nn.training.loop import fit
from edgecv.nn.training.objective import Objective, supervised
from edgecv.nn.training.result import FitResult

__all__ = ["FitResult", "Objective", "fit", "supervised"]
