"""The stages of a recipe: each table's keys are the options of the command of that name, with ``_`` for ``-``."""

from dataclasses import dataclass, field

from edgecv.config.distillation import DistillSettings
from edgecv.config.factorization import FactorizeSettings
from edgecv.config.pruning import PruneSettings
from edgecv.config.settings import check_settings, setting
from edgecv.config.training import TrainSettings
from edgecv.errors import UsageError
from edgecv.manifest import INTERPOLATIONS

HEALING_EPOCHS = 10
"""Where nobody says otherwise; the network has learnt already."""

QUANTIZE_MODES = ("int8", "dynamic", "fp16", "bf16", "weights16", "weights8", "weights4")


@dataclass(frozen=True, slots=True)
class TrainStage:
    """``edgecv train``: from scratch, unless one of the keys says where to start."""

    weights: str = setting("", "State dict to start from.")
    pretrained: bool = setting(False, "Start from the published weights.")
    init_from: str = setting("", "Checkpoint of a trained shallower network of the family, whose layers are copied.")
    settings: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        check_settings(self)
        if sum((bool(self.weights), self.pretrained, bool(self.init_from))) > 1:
            raise UsageError("weights, pretrained and init_from contradict each other; leave one.")


@dataclass(frozen=True, slots=True)
class DistillStage:
    """``edgecv distill``: ``student`` learns from what [train] made, or from ``teacher``."""

    student: str = setting("", "Network that learns: a name, a checkpoint, or auto (with like).")
    teacher: str = setting("", "Checkpoint, .onnx or network to learn from, where the recipe does not train it.")
    teacher_weights: str = setting("", "State dict of a teacher given by name.")
    like: str = setting("", "auto: CNN to make the depthwise-separable version of.")
    macs: float = setting(0.1, "auto: share of its MACs (to 1), or their number.", low=1e-4, high=1e15)
    weights: str = setting("", "State dict the student starts from.")
    pretrained: bool = setting(False, "The student starts from published weights.")
    distillation: DistillSettings = field(default_factory=DistillSettings)
    settings: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.student:
            raise UsageError("the key 'student' is missing: the network that learns.")
        if (self.student == "auto") != bool(self.like):
            raise UsageError("student 'auto' and like belong together: the network that the student is to be like.")


@dataclass(frozen=True, slots=True)
class PruneStage:
    """``edgecv prune``: what is to remain, and the training that heals; it is not healed where there is no data."""

    weights: str = setting("", "State dict of a network given by name, where no stage before made its weights.")
    bench: bool = setting(True, "Export and time both networks.")
    pruning: PruneSettings = field(default_factory=PruneSettings)
    settings: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=HEALING_EPOCHS))

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.pruning.to and not self.pruning.by_weight:
            raise UsageError("say what is to remain: to = 'macs=0.5', unstructured = 0.8 or nm = '2:4'.")


@dataclass(frozen=True, slots=True)
class FactorizeStage:
    """``edgecv factorize``: cheaper layers, and the training that heals; it is not healed where there is no data."""

    weights: str = setting("", "State dict of a network given by name, where no stage before made its weights.")
    bench: bool = setting(True, "Export and time both networks.")
    factorization: FactorizeSettings = field(default_factory=FactorizeSettings)
    settings: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=HEALING_EPOCHS))

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, slots=True)
class ExportStage:
    """``edgecv export``."""

    weights: str = setting("", "State dict of the network, where no stage before made its weights.")
    random_init: bool = setting(False, "Random weights: the model tests the chain, its answers mean nothing.")
    arch: str = setting("", "Network of a checkpoint that does not say it.")
    labels: str = setting("", "File with a label a line, where the network has none.")
    input: str = setting("uint8", "uint8 (pixels; normalising is inside) or float.", of="uint8 float")
    softmax: bool = setting(False, "Probabilities instead of logits.")
    dynamic_size: bool = setting(False, "Any height and width.")
    opset: int | None = setting(None, "ONNX opset; default: what the device can read.", low=7, high=100)
    mean: tuple[float, ...] = setting((), "Of a foreign .onnx: three numbers for pixels of 0 to 1.", low=-1e4, high=1e4)
    std: tuple[float, ...] = setting((), "Of a foreign .onnx: three numbers.", low=1e-6, high=1e4)
    input_size: tuple[int, ...] = setting((), "Of a foreign .onnx: height and width.", low=1, high=16384)
    interpolation: str = setting("bicubic", "Of a foreign .onnx: how images are resized.", of=" ".join(INTERPOLATIONS))
    crop_pct: float = setting(0.875, "Of a foreign .onnx: share kept by the centre crop.", low=1e-3, high=1)

    def __post_init__(self) -> None:
        check_settings(self)
        for key, count in (("mean", 3), ("std", 3), ("input_size", 2)):
            if len(getattr(self, key)) not in (0, count):
                raise UsageError(f"{key} has {len(getattr(self, key))} numbers, not {count}.")


@dataclass(frozen=True, slots=True)
class QuantizeStage:
    """``edgecv quantize``."""

    mode: str = setting("int8", f"One of {', '.join(QUANTIZE_MODES)}.", of=" ".join(QUANTIZE_MODES))
    images: int = setting(512, "Calibrate on at most so many.", low=1, high=1_000_000)
    ranges: str = setting("mse", "int8: activation ranges by mse, percentile or minmax.", of="mse percentile minmax")
    method: str = setting(
        "auto",
        "int8: rung of the ladder to walk to; auto stops at the gate.",
        of="auto per-channel ranges equalize bias round mixed finetune",
    )
    keep_float: tuple[str, ...] = setting((), "Layers to leave float: names, auto, or how many.")
    activations: int = setting(8, "int8: bits of activations, 8 or 16.", low=8, high=16)
    int8_heads: bool = setting(False, "int8: also quantize a detector's head.")
    device: str = setting("", "int8: profile whose int8 to write; default the recipe's device, or any CPU's.")
    provider: str = setting("cpu", "Where it is judged: cpu, cuda, … or an ordered list.")
    threads: str = setting("auto", "Threads of ONNX Runtime: a number, or auto.")

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, slots=True)
class VerifyStage:
    """``edgecv verify``: the quantized model against the exported one."""

    max_drop: float | None = setting(None, "Largest acceptable drop of top-1, in points.", low=0, high=100)
    limit: int | None = setting(None, "Images to use, evenly spaced.", low=1, high=100_000_000)
    batch: int = setting(8, "Images per run.", low=1, high=1024)
    provider: str = setting("cpu", "cpu, cuda, … or an ordered list.")
    threads: str = setting("auto", "Threads of ONNX Runtime: a number, or auto.")

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, slots=True)
class EvalStage:
    """``edgecv eval``: the accuracy of the last model."""

    tta: str = setting("none", "Views averaged: none, flip or fivecrop.", of="none flip fivecrop")
    limit: int | None = setting(None, "Images to use, evenly spaced.", low=1, high=100_000_000)
    batch: int = setting(8, "Images per run.", low=1, high=1024)
    provider: str = setting("cpu", "cpu, cuda, … or an ordered list.")
    threads: str = setting("auto", "Threads of ONNX Runtime: a number, or auto.")

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, slots=True)
class BenchStage:
    """``edgecv bench``: the exported model and the quantized one, in turns."""

    provider: str = setting("cpu", "cpu, cuda, … or an ordered list.")
    preset: str = setting("rapid", "rapid (6 s a model), quick (10 s) or official (60 s).", of="rapid quick official")
    batch: int = setting(1, "Images per run.", low=1, high=1024)
    threads: str = setting("auto", "Threads of ONNX Runtime: a number, or auto.")

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, slots=True)
class Gates:
    """Limits on the last model; a run that misses one ends with exit code 1, with 4 where the data cannot tell."""

    top1: float | None = setting(None, "Least top-1 accuracy, 0 to 1.", low=0, high=1)
    max_drop: float | None = setting(None, "Largest drop by quantization, in points of top-1.", low=0, high=100)
    latency_ratio: float | None = setting(None, "Least speed against the exported float model.", low=0, high=1e6)
    latency_ms: float | None = setting(None, "Largest median latency in milliseconds.", low=0, high=1e9)
    size_mb: float | None = setting(None, "Largest file in MB (10^6 bytes).", low=0, high=1e9)

    def __post_init__(self) -> None:
        check_settings(self)
