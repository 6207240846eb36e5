"""Which images are the same picture: equal bytes, or nearly equal after re-encoding or resizing."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edgecv.data.fingerprint import Fingerprint

MAX_HASH_BITS = 5
"""Of 64: re-saving photographs as JPEG of quality 30 or at half size changes up to this many, while two different
photographs of ImageNet differ in 10 or more."""

MAX_COLOR_DIFFERENCE = 12.0
"""Mean over 4x4 RGB cells, of 255; stops flat or dark pictures, whose hashes are all alike, from counting as equal."""

_BANDS = MAX_HASH_BITS + 1  # two hashes within that distance agree on at least one of so many bands
_BITS_SET = np.array([bin(i).count("1") for i in range(256)], np.uint8)


def group_duplicates(prints: Sequence[Fingerprint]) -> list[list[int]]:
    """Return the groups of two or more images that show the same picture, as positions in ``prints``.

    Two images belong together when their bytes are equal, or their perceptual hashes differ in at most
    :data:`MAX_HASH_BITS` and their colours by at most :data:`MAX_COLOR_DIFFERENCE`; groups are joined through
    common members. Broken images are compared by their bytes only.
    """
    parents = list(range(len(prints)))
    by_sha: dict[str, int] = {}
    by_hash: dict[int, list[int]] = defaultdict(list)
    for i, item in enumerate(prints):
        if item.sha256 and (first := by_sha.setdefault(item.sha256, i)) != i:
            _join(parents, first, i)
        elif not item.error:
            _join_or_add(parents, prints, by_hash[item.difference_hash], i)
    _join_near(parents, prints, by_hash)
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(len(prints)):
        groups[_root(parents, i)].append(i)
    return [group for group in groups.values() if len(group) > 1]


def group_copies(prints: Sequence[Fingerprint]) -> list[list[int]]:
    """Return the groups of two or more images whose bytes are equal, as positions in ``prints``."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, item in enumerate(prints):
        groups[item.sha256].append(i)
    return [group for group in groups.values() if len(group) > 1]


def _join_or_add(parents: list[int], prints: Sequence[Fingerprint], alike: list[int], i: int) -> None:
    """Join image ``i`` to those of the same hash and colours, or keep it as one more to compare with."""
    for other in alike:
        if _color_difference(prints[other], prints[i]) <= MAX_COLOR_DIFFERENCE:
            _join(parents, other, i)
            return
    alike.append(i)


def _join_near(parents: list[int], prints: Sequence[Fingerprint], by_hash: dict[int, list[int]]) -> None:
    hashes = np.array(sorted(by_hash), np.uint64)
    edges = np.linspace(0, 64, _BANDS + 1).astype(int)
    for low, high in pairwise(edges.tolist()):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order], prepend=band[order][:1] + np.uint64(1)))
        for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
            members = hashes[order[start:end]]
            for k in range(len(members) - 1):
                near = members[k + 1 :][_distance(members[k + 1 :], members[k]) <= MAX_HASH_BITS]
                for other in near:
                    _join_pairs(parents, prints, by_hash[int(members[k])], by_hash[int(other)])


def _join_pairs(parents: list[int], prints: Sequence[Fingerprint], left: list[int], right: list[int]) -> None:
    for i in left:
        for j in right:
            if _color_difference(prints[i], prints[j]) <= MAX_COLOR_DIFFERENCE:
                _join(parents, i, j)


def _distance(hashes: npt.NDArray[np.uint64], one: np.uint64) -> npt.NDArray[np.int64]:
    changed = (hashes ^ one)[:, None].view(np.uint8)
    return np.asarray(_BITS_SET[changed].sum(axis=1, dtype=np.int64))


def _color_difference(a: Fingerprint, b: Fingerprint) -> float:
    left, right = (np.frombuffer(x.colors, np.uint8).astype(np.int16) for x in (a, b))
    return float(np.abs(left - right).mean())


def _root(parents: list[int], i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


def _join(parents: list[int], i: int, j: int) -> None:
    a, b = _root(parents, i), _root(parents, j)
    parents[max(a, b)] = min(a, b)
