import pytest

from edgecv.config.training import TrainSettings, with_learning_rate
from edgecv.errors import UsageError
from edgecv.nn.training.schedule import is_over, rate_factor


def factors(settings: TrainSettings, steps: int, top1: tuple[float, ...] = ()) -> list[float]:
    return [rate_factor(settings, i, steps, top1) for i in range(settings.epochs * steps)]


def test_cosine_falls_from_one_to_nearly_nothing_after_a_rising_warm_up() -> None:
    rates = factors(TrainSettings(epochs=10, warmup_epochs=2), 5)
    assert rates[:10] == sorted(rates[:10])
    assert rates[0] < 0.1
    assert max(rates) == pytest.approx(1, abs=0.02)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.01


def test_step_falls_to_a_tenth_at_half_and_three_quarters() -> None:
    rates = factors(TrainSettings(epochs=8, schedule="step"), 2)
    assert rates == pytest.approx([1] * 8 + [0.1] * 4 + [0.01] * 4)


def test_step_falls_after_the_epochs_named() -> None:
    rates = factors(TrainSettings(epochs=4, schedule="step", step_epochs=(1,), step_factor=0.5), 2)
    assert rates == pytest.approx([1, 1] + [0.5] * 6)


def test_plateau_divides_by_ten_when_nothing_gets_better() -> None:
    settings = TrainSettings(epochs=9, schedule="plateau", patience=2)
    top1 = [0.5, 0.6, 0.6, 0.59, 0.58, 0.57]
    assert [rate_factor(settings, 0, 1, top1[:n]) for n in range(7)] == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01])


def test_constant_stays() -> None:
    assert set(factors(TrainSettings(epochs=3, schedule="constant"), 4)) == {1.0}


def test_training_ends_with_the_epochs_or_when_early_stop_has_waited_enough() -> None:
    settings = TrainSettings(epochs=10, early_stop=3)
    assert not is_over(settings, [])
    assert not is_over(settings, [0.5, 0.4, 0.4])
    assert is_over(settings, [0.5, 0.4, 0.4, 0.5])
    assert is_over(TrainSettings(epochs=2), [0.1, 0.2])


def test_learning_rate_follows_the_batch_and_is_smaller_from_weights() -> None:
    small, large = (with_learning_rate(TrainSettings(batch=b), pretrained=False).learning_rate for b in (64, 128))
    assert large == 2 * small
    assert with_learning_rate(TrainSettings(batch=64), pretrained=True).learning_rate < small
    assert with_learning_rate(TrainSettings(learning_rate=0.3), pretrained=True).learning_rate == 0.3


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("learning_rate", float("nan")), ("schedule", "cosin")])
def test_a_setting_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        TrainSettings(**{name: value})  # type: ignore[arg-type]
