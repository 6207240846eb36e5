import pytest

from edgecv import errors


@pytest.mark.parametrize(
    ("cls", "code"),
    [
        (errors.UsageError, 2),
        (errors.GateFailedError, 1),
        (errors.EnvironmentRefusedError, 3),
        (errors.UndecidedError, 4),
        (errors.DeviceUnreachableError, 5),
    ],
)
def test_every_error_carries_its_exit_code(cls: type[errors.EdgecvError], code: int) -> None:
    assert cls("why").exit_code == code
    assert issubclass(cls, errors.EdgecvError)


def test_nearest_names_what_was_probably_meant() -> None:
    assert errors.nearest("resnet5", ["resnet50", "vgg11"]) == " Did you mean 'resnet50'?"
    assert errors.nearest("qqqq", ["resnet50", "vgg11"]) == ""


def test_a_name_known_twice_is_shown_once() -> None:
    assert errors.nearest("resnet5", ["resnet50", "resnet50"]) == " Did you mean 'resnet50'?"
