import pytest

from edgecv.config.device import known_devices
from edgecv.config.pruning import PruneSettings, parse_pattern, parse_target, simd_lanes, step_epochs
from edgecv.errors import UsageError


@pytest.mark.parametrize(
    ("text", "measure", "share", "provider"),
    [
        ("macs=0.5", "macs", 0.5, "cpu"),
        ("params=.25", "params", 0.25, "cpu"),
        ("latency=0.6@xnnpack,cpu", "latency", 0.6, "xnnpack,cpu"),
    ],
)
def test_a_target_is_read_and_written_as_typed(text: str, measure: str, share: float, provider: str) -> None:
    target = parse_target(text)
    assert (target.measure, target.share, target.provider) == (measure, share, provider)
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mac=0.5", "Did you mean 'macs'"),
        ("macs=1.5", "between 0 and 1"),
        ("macs=nan", "between 0 and 1"),
        ("macs", "between 0 and 1"),
        ("macs=0.5@cpu", "belongs to latency"),
        ("latency=0.5@", "belongs to latency"),
        ("0.5", "is not macs=SHARE"),
    ],
)
def test_a_target_that_cannot_be_meant_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_target(text)


@pytest.mark.parametrize("text", ["4:2", "2:2", "0:4", "2", "2:64", "a:b", ""])
def test_a_pattern_keeps_fewer_than_its_block(text: str) -> None:
    with pytest.raises(UsageError, match="is not N:M"):
        parse_pattern(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"to": "macs=0.5", "nm": "2:4"}, "give one"),
        ({"unstructured": 0.5, "criterion": "taylor"}, "magnitude"),
        ({"to": "macs=0.5", "criterion": "l3"}, "criterion 'l3'"),
        ({"to": "macs=0.5", "scope": "everywhere"}, "scope"),
        ({"to": "macs=0.5", "steps": -1}, "steps"),
        ({"unstructured": 1.5}, "unstructured"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PruneSettings(**changes)  # type: ignore[arg-type]


def test_every_profile_has_a_register_width() -> None:
    lanes = {d.name: simd_lanes(d.isa) for d in known_devices()}
    assert lanes == {d.name: d.simd_channels for d in known_devices()}
    assert {lanes[name] for name in ("rpi5", "x86-avx2", "x86-vnni")} == {4, 8, 16}


def test_epochs_are_all_given_out_and_the_last_step_gets_most() -> None:
    for epochs in range(1, 40):
        for steps in range(1, min(epochs, 9) + 1):
            shares = step_epochs(epochs, steps)
            assert sum(shares) == epochs
            assert len(shares) == steps
            assert min(shares) >= 1, (epochs, steps)
