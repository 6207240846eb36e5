"""Values of a graph that must be changed together (union-find)."""

import onnx_ir as ir


class TiedValues:
    """Sets of values; joining two values joins their sets."""

    def __init__(self) -> None:
        self._parent: dict[ir.Value, ir.Value] = {}

    def root(self, value: ir.Value) -> ir.Value:
        """Return the value that stands for the set of ``value``."""
        top = value
        while (parent := self._parent.setdefault(top, top)) is not top:
            top = parent
        while value is not top:
            self._parent[value], value = top, self._parent[value]
        return top

    def join(self, a: ir.Value, b: ir.Value) -> None:
        """Make one set of the sets of ``a`` and ``b``."""
        self._parent[self.root(a)] = self.root(b)
