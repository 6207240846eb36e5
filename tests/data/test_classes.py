import pytest

from edgecv.data.classes import match_classes
from edgecv.errors import UsageError

LABELS = ("tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "Black Swan", "crane")
IDS = ("n01440764", "n01443537", "n02012849", "n01860187", "n03126707")


@pytest.mark.parametrize(
    ("folder", "index"),
    [
        ("n01443537", 1),
        ("tench, Tinca tinca", 0),
        ("tench", 0),
        ("TINCA_TINCA", 0),
        ("black_swan", 3),
        ("gold fish", 1),
        ("N01860187", 3),
    ],
)
def test_folder_is_matched_by_id_text_or_synonym(folder: str, index: int) -> None:
    assert match_classes([folder], LABELS, IDS) == {folder: index}


def test_unknown_folder_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'goldfsh' matches none of the model's 5 labels\. Did you mean 'goldfish'"):
        match_classes(["goldfsh", "tench"], LABELS, IDS)
    with pytest.raises(UsageError, match=r"'n01440765'.* Did you mean 'n01440764'"):
        match_classes(["n01440765"], LABELS, IDS)


def test_nothing_near_shows_what_labels_look_like() -> None:
    with pytest.raises(UsageError, match=r"'zzz' \(and 1 more\).*called like 'n01440764'"):
        match_classes(["zzz", "zzzz"], LABELS, IDS)


def test_a_name_of_two_labels_asks_for_the_id() -> None:
    with pytest.raises(UsageError, match=r"2 \('crane'\) and 4 \('crane'\); name it 'n02012849' or 'n03126707'"):
        match_classes(["crane"], LABELS, IDS)


def test_two_folders_of_one_class_are_refused() -> None:
    with pytest.raises(UsageError, match="'n01440764' and 'tench' both mean"):
        match_classes(["tench", "n01440764"], LABELS, IDS)


def test_numbers_are_indices_only_when_all_are() -> None:
    assert match_classes(["0", "3"], LABELS, IDS) == {"0": 0, "3": 3}
    assert match_classes(["10", "9"], (), (), num_classes=11) == {"10": 10, "9": 9}
    with pytest.raises(UsageError, match="'0' matches none"):
        match_classes(["0", "tench"], LABELS, IDS)
    with pytest.raises(UsageError, match="'5' is not a class index of this model, which has 0 to 4"):
        match_classes(["1", "5"], LABELS, IDS)
    with pytest.raises(UsageError, match="both mean the model's class number 1"):
        match_classes(["1", "01"], (), (), num_classes=3)


def test_labels_that_look_like_numbers_are_texts() -> None:
    assert match_classes(["7"], ("3", "7", "5")) == {"7": 1}


def test_a_model_without_labels_is_explained() -> None:
    with pytest.raises(UsageError, match=r"carries no label names.*--labels FILE"):
        match_classes(["cat", "dog"], (), (), num_classes=2)
