"""How a student learns from its teacher: the same names in Python, on the command line and in a recipe."""

from dataclasses import dataclass

from edgecv.config.settings import check_settings, setting
from edgecv.errors import UsageError


@dataclass(frozen=True, slots=True)
class DistillSettings:
    """Settings of a distillation, beside those of the training.

    Sources: Hinton et al. 2015 (kd); Zhao et al., CVPR 2022 (dkd); Huang et al., NeurIPS 2022 (dist); Romero et al.,
    ICLR 2015 (hints); Touvron et al., ICML 2021 (token).

    Raises:
        UsageError: A value outside its range; the message names the setting.
    """

    loss: str = setting("kd", "kd (Hinton), dkd (decoupled) or dist (relations).", of="kd dkd dist")
    temperature: float = setting(4.0, "Divides the logits of both before the softmax.", low=0.01, high=100)
    teacher_weight: float = setting(0.9, "Share of the teacher's loss; the rest is the labels'.", low=0, high=1)
    hints: tuple[str, ...] = setting((), "Features brought together: auto, or STUDENT_LAYER=TEACHER_LAYER.")
    hint_weight: float = setting(1.0, "Weight of the hints' loss beside the others.", low=0, high=1e4)
    token: str = setting("soft", "A distillation token (DeiT) learns: soft, hard or off.", of="soft hard off")
    keep_logits: str = setting("auto", "Keep the teacher's logits on disk: auto, on or off.", of="auto on off")
    teacher_provider: str = setting("cpu", "ONNX Runtime provider of a teacher given as .onnx.")

    def __post_init__(self) -> None:
        check_settings(self)
        for pair in self.hints:
            if pair != "auto" and pair.count("=") != 1:
                raise UsageError(f"hints '{pair}' is neither auto nor STUDENT_LAYER=TEACHER_LAYER.")
        if "auto" in self.hints and len(self.hints) > 1:
            raise UsageError("hints 'auto' stands alone; leave out the pairs or the auto.")
