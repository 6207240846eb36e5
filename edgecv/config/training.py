"""How a network is trained: the same names in Python, on the command line and in a recipe."""

from dataclasses import dataclass, replace

from edgecv.config.augmentation import parse_augmentations
from edgecv.config.settings import check_settings, setting
from edgecv.errors import UsageError


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Settings of a training; every field's ``metadata`` holds its help text and the range that is checked.

    Raises:
        UsageError: A value outside its range; the message names the setting.
    """

    epochs: int = setting(30, "Passes over the training images.", low=1, high=100_000)
    batch: int = setting(128, "Images of one step, over all processes together.", low=1, high=65_536)
    optimizer: str = setting("sgd", "sgd (with momentum) or adamw.", of="sgd adamw")
    learning_rate: float = setting(
        0.0, "Largest learning rate; 0: by optimizer, batch and starting point.", low=0, high=100
    )
    momentum: float = setting(0.9, "Momentum of sgd.", low=0, high=0.9999)
    nesterov: bool = setting(True, "Nesterov's momentum.")
    weight_decay: float = setting(5e-4, "Weight decay; never of norms and biases.", low=0, high=10)
    bias_rate: float = setting(
        1.0, "Factor of the learning rate of the norms' biases; 16 to 64 where epochs are few.", low=0.01, high=1000
    )
    schedule: str = setting("cosine", "cosine, step, plateau or constant.", of="cosine step plateau constant")
    warmup_epochs: float = setting(0.0, "Epochs in which the learning rate grows from 0.", low=0, high=10_000)
    step_epochs: tuple[int, ...] = setting(
        (), "step: epochs after which the rate falls; default at 1/2 and 3/4.", low=1, high=100_000
    )
    step_factor: float = setting(0.1, "step, plateau: what the rate is multiplied by.", low=1e-6, high=1)
    patience: int = setting(5, "plateau: epochs without a better top-1 before the rate falls.", low=1, high=10_000)
    early_stop: int = setting(0, "Stop after so many epochs without a better top-1; 0: never.", low=0, high=10_000)
    label_smoothing: float = setting(0.0, "Share of the target spread over all classes.", low=0, high=0.9)
    mixup: float = setting(0.0, "Mixup's alpha; 0: off.", low=0, high=100)
    cutmix: float = setting(0.0, "CutMix's alpha; 0: off. With mixup too, each step draws one.", low=0, high=100)
    ema: float = setting(0.0, "Decay of the weights' moving average, which is what is kept; 0: off.", low=0, high=1)
    clip_norm: float = setting(0.0, "Largest norm of the gradient; 0: not clipped.", low=0, high=1e6)
    dropout: float | None = setting(None, "Dropout rate; default the network's own.", low=0, high=0.95)
    drop_path: float | None = setting(None, "Share of residual branches skipped; default own.", low=0, high=0.95)
    freeze: str = setting("none", "none, or all-but-head: train the classifier alone.", of="none all-but-head")
    freeze_to: str = setting("", "Freeze from the input up to and with this stage (layer2, blocks.3, …).")
    layer_decay: float = setting(1.0, "Factor of the learning rate per layer towards the input.", low=0.01, high=1)
    augment: tuple[str, ...] = setting(("crop", "flip"), "Augmentations: NAME or NAME:STRENGTH, or none.")
    input_size: int = setting(0, "Pixels of the square input; 0: the network's own.", low=0, high=4096)
    precision: str = setting("auto", "auto, float32, bfloat16 or float16 (CUDA).", of="auto float32 bfloat16 float16")
    channels_last: bool = setting(True, "NHWC memory order, which convolutions like.")
    workers: int = setting(-1, "Processes that read images; 0: none beside this one, -1: chosen.", low=-1, high=256)
    threads: int = setting(0, "Threads of PyTorch; 0: the cores this process may use.", low=0, high=1024)
    checkpoint_minutes: float = setting(
        10.0, "Checkpoint at least so often, beside every epoch's; 0: each step.", low=0, high=10_000
    )
    parallel: str = setting("ddp", "Several processes: ddp, or fsdp for what does not fit one.", of="ddp fsdp")
    device: str = setting("auto", "auto, cpu or cuda.", of="auto cpu cuda")

    def __post_init__(self) -> None:
        check_settings(self)
        parse_augmentations(self.augment)
        if self.warmup_epochs > self.epochs:
            raise UsageError(f"warmup_epochs {self.warmup_epochs:g} is more than epochs {self.epochs}.")
        if self.ema == 1:
            raise UsageError("ema 1 would never take up a new weight; use 0.99 to 0.9999.")
        if self.nesterov and not self.momentum:
            object.__setattr__(self, "nesterov", False)  # there is no momentum to look ahead with


RESUME_FREE = frozenset({"workers", "checkpoint_minutes"})
"""Settings that may change when a training goes on: they do not touch its result."""


def with_learning_rate(settings: TrainSettings, *, pretrained: bool) -> TrainSettings:
    """Fill in a learning rate of 0, in proportion to the batch.

    Sources: from scratch SGD 0.1 at 256 images (He et al. 2015; Goyal et al. 2017 for the proportion), AdamW 5e-4 at
    512 (Touvron et al. 2021, DeiT); a tenth of it where weights are given (Kornblith et al. 2019).
    """
    if settings.learning_rate:
        return settings
    rate = 0.1 * settings.batch / 256 if settings.optimizer == "sgd" else 5e-4 * settings.batch / 512
    return replace(settings, learning_rate=rate / 10 if pretrained else rate)
