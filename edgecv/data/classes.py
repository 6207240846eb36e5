"""Folder names to a model's label indices, by name: numbering the folders that happen to be there gets all wrong."""

from collections.abc import Iterable, Sequence

from edgecv.errors import UsageError, nearest


def match_classes(
    folders: Iterable[str],
    labels: Sequence[str],
    label_ids: Sequence[str] = (),
    num_classes: int = 0,
) -> dict[str, int]:
    """Return the label index of each folder name.

    Tried in this order: the model's label ids (WordNet ids for ImageNet), its label texts and their
    comma-separated synonyms ("tench, Tinca tinca") with case, spaces and underscores ignored, and last,
    when *every* folder name is a whole number in range, that number.

    Args:
        folders: Class names as the data has them; any subset of the model's classes.
        labels: The model's label texts by index; may be empty.
        label_ids: The model's folder names by index; may be empty.
        num_classes: How many classes the model has where it carries no labels; 0 when not known.

    Raises:
        UsageError: A folder maps to nothing (the nearest names are given) or to two labels, two folders map
            to one label, or the model has no labels and the folders are not numbers.

    >>> match_classes(["n02", "tinca_tinca"], ["tench, Tinca tinca", "goldfish"], ["n01", "n02"])
    {'n02': 1, 'tinca_tinca': 0}
    """
    names = sorted(set(folders))
    count = len(labels) or len(label_ids) or num_classes
    if not labels and not label_ids:
        if numbers := _numbers(names, count):
            return numbers
        raise UsageError(
            f"the model carries no label names, so the class folders ({_some(names)}) cannot be matched to its "
            "outputs; name the folders by class index (0, 1, …), or adopt the model again with its labels: "
            "edgecv export MODEL.onnx --labels FILE"
        )
    known = _known_names(labels, label_ids)
    by_id = {name: i for i, name in enumerate(label_ids)}
    matched: dict[str, int] = {}
    for name in names:
        indices = {by_id[name]} if name in by_id else known.get(_plain(name), set())
        if len(indices) == 1:
            matched[name] = next(iter(indices))
        elif indices:
            raise UsageError(_ambiguous(name, sorted(indices), labels, label_ids))
    missing = [name for name in names if name not in matched]
    if missing and len(missing) == len(names) and (numbers := _numbers(names, count)):
        return numbers
    if missing:
        raise UsageError(_unknown(missing, labels, label_ids))
    _check_distinct(matched, labels)
    return matched


def _known_names(labels: Sequence[str], label_ids: Sequence[str]) -> dict[str, set[int]]:
    whole: dict[str, set[int]] = {}
    synonyms: dict[str, set[int]] = {}
    for i, label in enumerate(labels):
        whole.setdefault(_plain(label), set()).add(i)
        for part in label.split(","):
            synonyms.setdefault(_plain(part), set()).add(i)
    for i, name in enumerate(label_ids):
        whole.setdefault(_plain(name), set()).add(i)
    return synonyms | whole  # a whole label wins over another one's synonym


def _plain(name: str) -> str:
    return "".join(name.casefold().replace("_", " ").split())


def _numbers(names: Sequence[str], count: int) -> dict[str, int]:
    if not names or not all(name.isascii() and name.isdigit() for name in names):
        return {}
    numbers = {name: int(name) for name in names}
    if count and max(numbers.values()) >= count:
        raise UsageError(
            f"class folder '{max(names, key=int)}' is not a class index of this model, which has 0 to {count - 1}; "
            "name the folders after the model's labels."
        )
    _check_distinct(numbers, ())
    return numbers


def _check_distinct(matched: dict[str, int], labels: Sequence[str]) -> None:
    seen: dict[int, str] = {}
    for name, index in matched.items():
        if index in seen:
            label = f"'{labels[index]}'" if index < len(labels) else f"number {index}"
            raise UsageError(
                f"the class folders '{seen[index]}' and '{name}' both mean the model's class {label}; "
                "put their images into one folder."
            )
        seen[index] = name


def _unknown(missing: Sequence[str], labels: Sequence[str], label_ids: Sequence[str]) -> str:
    first = missing[0]
    names = [*label_ids, *labels, *(part.strip() for label in labels for part in label.split(","))]
    plain = {_plain(name): name for name in reversed(names)}
    hint = nearest(first, names) or nearest(_plain(first), plain)
    if not hint:
        hint = f" The model's classes are called like {_some(list(label_ids or labels))}."
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    return f"class folder '{first}'{more} matches none of the model's {len(labels or label_ids)} labels.{hint}"


def _ambiguous(name: str, indices: Sequence[int], labels: Sequence[str], label_ids: Sequence[str]) -> str:
    where = " and ".join(f"{i} ('{labels[i]}')" for i in indices[:3] if i < len(labels))
    better = f"; name it '{label_ids[indices[0]]}' or '{label_ids[indices[1]]}'" if label_ids else ""
    return f"class folder '{name}' fits several of the model's labels, {where}{better}."


def _some(names: Sequence[str], count: int = 3) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:count])
    return shown + (", …" if len(names) > count else "")
