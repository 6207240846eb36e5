"""Method and rank of every layer: by energy, by a target for the whole network, never with more MACs."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from edgecv.config.factorization import AUTOMATIC, FactorizeSettings
from edgecv.config.pruning import Target, simd_lanes
from edgecv.errors import UsageError
from edgecv.nn.factorize.decompose import Spectrum, factors_of, spectrum_of
from edgecv.nn.factorize.geometry import chain_cost
from edgecv.nn.factorize.layers import filled_chain, find_layer, make_step, replace_layer
from edgecv.nn.factorize.methods import METHODS, Rank
from edgecv.nn.factorize.select import Found, find_layers
from edgecv.nn.network import Network
from edgecv.nn.size import Size, measure_size
from edgecv.progress import Progress, no_progress
from edgecv.runtime.host import cpu_flags

_HALVINGS = 24
"""Of the energy: finer than one singular value of the flattest spectrum."""


@dataclass(frozen=True, slots=True)
class Option:
    """One way to replace a layer.

    Attributes:
        method: Key of :data:`~edgecv.nn.factorize.methods.METHODS`.
        rank: As the method takes it.
        macs: Of the layers that take its place.
        params: Of them.
    """

    method: str
    rank: Rank
    macs: int
    params: int


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A layer that may be replaced.

    Attributes:
        found: Name, shapes, input size.
        weight: Its weight.
        spectra: What the ranks of each method that fits keep.
    """

    found: Found
    weight: Tensor
    spectra: dict[str, Spectrum]

    @property
    def macs(self) -> int:
        """Of the layer as it is."""
        return self.found.geometry.macs(self.found.size)


@dataclass(frozen=True, slots=True, eq=False)
class Factorizable:
    """A network whose layers are analysed.

    Attributes:
        network: As it was given.
        candidates: Layers that a method fits, in the order in which they run.
        left_alone: Why each other layer is not among them.
        whole: MACs and parameters of the network.
        multiple: Ranks are rounded up to a multiple of this.
        seed: Of decompositions that start at random.
    """

    network: Network
    candidates: tuple[Candidate, ...]
    left_alone: dict[str, str]
    whole: Size
    multiple: int
    seed: int

    def options(self, candidate: Candidate, energy: float, rank: int = 0) -> list[Option]:
        """Return the ways to replace a layer that keep ``energy`` and save MACs, cheapest first.

        Args:
            candidate: The layer.
            energy: Share of the squared weights to keep.
            rank: Instead of it, when not 0.
        """
        options = []
        for method, spectrum in candidate.spectra.items():
            full = METHODS[method].full_rank(candidate.found.geometry)
            least = tuple(min(rank, f) for f in full) if rank else spectrum.rank_at(energy)
            for chosen in (round_up(least, full, self.multiple), least) if least and not rank else (least,):
                option = chosen and self._option(candidate, method, chosen)
                if option and option.macs < candidate.macs:
                    options.append(option)
                    break
        return sorted(options, key=lambda o: o.macs)

    def choose(self, energy: float, rank: int = 0) -> dict[str, Option]:
        """Return the cheapest way for each layer that has one."""
        cheapest = {c.found.name: self.options(c, energy, rank)[:1] for c in self.candidates}
        return {name: options[0] for name, options in cheapest.items() if options}

    def size(self, choice: dict[str, Option]) -> Size:
        """Return MACs and parameters of the network with a choice of replacements."""
        replaced = [(c, choice[c.found.name]) for c in self.candidates if c.found.name in choice]
        return Size(
            self.whole.macs - sum(c.macs - o.macs for c, o in replaced),
            self.whole.params - sum(c.found.geometry.params - o.params for c, o in replaced),
        )

    def _option(self, candidate: Candidate, method: str, rank: Rank) -> Option:
        geometry = candidate.found.geometry
        macs, params = chain_cost(METHODS[method].pieces(geometry, rank), candidate.found.size)
        return Option(method, rank, macs, params)


def analyse(
    network: Network, settings: FactorizeSettings, *, seed: int = 0, progress: Progress = no_progress
) -> Factorizable:
    """Find the layers that can be replaced and what each rank of them keeps.

    Args:
        network: On the CPU, in eval mode; not changed.
        settings: Methods and layers.
        seed: Of decompositions that start at random.
        progress: Told after each layer.

    Raises:
        UsageError: A pattern of layers matches none, or no layer fits the method.
    """
    classes = network.arguments.get("num_classes")
    size = network.input.input_size
    found, left_alone = find_layers(
        network.module, size, settings.layers, classes if isinstance(classes, int) else None
    )
    candidates = []
    for done, layer in enumerate(found):
        progress("decompose", done, len(found))
        spectra, reasons = _spectra(network.module, layer, settings.method, seed)
        if spectra:
            candidates.append(Candidate(layer, find_layer(network.module, layer.name).weight, spectra))
        else:
            left_alone[layer.name] = reasons
    progress("decompose", len(found), len(found))
    if not candidates:
        why = "; ".join(f"{n}: {w}" for n, w in list(left_alone.items())[:3])
        raise UsageError(f"no layer of '{network.name}' can be factorized by --method {settings.method} ({why}).")
    multiple = settings.rank_multiple or simd_lanes(tuple(cpu_flags()))
    whole = measure_size(network.module, size)
    return Factorizable(network, tuple(candidates), left_alone, whole, multiple, seed)


def find_choice(factorizable: Factorizable, target: Target) -> tuple[dict[str, Option], float]:
    """Return replacements that leave at most the target's share, losing as little energy as that takes; and the energy.

    Raises:
        UsageError: At the lowest rank of every layer more remains.
    """

    def share(choice: dict[str, Option]) -> float:
        return factorizable.size(choice).share_of(factorizable.whole, target.measure)

    low, high = 0.0, 1.0
    best = factorizable.choose(low)
    if share(best) > target.share:
        raise UsageError(
            f"--to {target} cannot be reached: with every layer at its lowest rank {share(best):.3f} of the "
            f"{target.measure} remain; ask for {target.measure}={share(best) + 0.01:.2f} or more, or another --method."
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        choice = factorizable.choose(middle)
        if share(choice) <= target.share:
            low, best = middle, choice
        else:
            high = middle
    return best, low


def replace_layers(
    factorizable: Factorizable, choice: dict[str, Option], progress: Progress = no_progress
) -> tuple[Network, dict[str, float]]:
    """Return the network with a choice of replacements, and the share of each kernel's energy that they keep."""
    network = factorizable.network
    module, kept = copy.deepcopy(network.module), {}
    chosen = [c for c in factorizable.candidates if c.found.name in choice]
    for done, candidate in enumerate(chosen):
        progress("replace layers", done, len(chosen))
        name, option = candidate.found.name, choice[candidate.found.name]
        factors, kept[name] = factors_of(
            option.method, candidate.weight, candidate.found.geometry, option.rank, factorizable.seed
        )
        replace_layer(module, name, filled_chain(find_layer(module, name), option.method, option.rank, factors))
    progress("replace layers", len(chosen), len(chosen))
    step = make_step({name: (option.method, option.rank) for name, option in choice.items()})
    return replace(network, module=module.eval(), structure=(*network.structure, step)), kept


def round_up(rank: Rank, full: Sequence[int], multiple: int) -> Rank:
    """Return a rank rounded up to a multiple, within the full rank.

    >>> round_up((3, 30), (64, 32), 16)
    (16, 32)
    """
    return tuple(min(math.ceil(r / multiple) * multiple, most) for r, most in zip(rank, full, strict=True))


def _spectra(module: nn.Module, layer: Found, asked: str, seed: int) -> tuple[dict[str, Spectrum], str]:
    methods = AUTOMATIC if asked == "auto" else (asked,)
    misfits = {m: METHODS[m].misfit(layer.geometry) for m in methods}
    weight = find_layer(module, layer.name).weight
    spectra = {m: spectrum_of(m, weight, layer.geometry, layer.size, seed) for m, why in misfits.items() if not why}
    return spectra, "; ".join(misfits.values())
