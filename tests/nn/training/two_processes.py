"""Train with one and with two processes over gloo; prints what a test compares. Run: two_processes.py COLORS FOLDER.

A process of its own, because it forks and because a process group cannot be left behind in a test session.
"""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from small_training import in_child, small_fit, small_network, weights_of

import edgecv.nn.training.curves as curves
import edgecv.nn.training.epoch as epoch
import edgecv.nn.training.loop as loop
from edgecv.nn.weights import read_state_dict


def as_two(work: Callable[[int], object]) -> list[int]:
    """Do ``work(rank)`` in two processes that know of each other, as a launcher would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in (0, 1):
        if (child := os.fork()) == 0:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            os._exit(abs(in_child(lambda: work(rank))))  # noqa: B023
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def train(colors: Path, folder: Path, rank: int = 0, *, name: str = "mlp", **changes: object) -> None:
    """Train without what differs between ranks on purpose (mixing), and keep the weights each rank has at the end."""
    curves.draw = lambda path, history: None
    run_to_end = loop._train

    def keep(run: epoch.Run) -> None:
        run_to_end(run)
        state = run.learner.state()
        torch.save(state["module"] | {f"average.{k}": v for k, v in state["average"].items()}, folder / f"{rank}.pt")

    loop._train = keep
    small_fit(colors, folder, network=small_network(name), mixup=0.0, cutmix=0.0, **changes)


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of any weight; statistics of the training's own copy are each rank's own."""
    return max(float((a[k].float() - b[k].float()).abs().max()) for k in a if "running" not in k)


def main(colors: Path, root: Path) -> None:
    in_child(lambda: train(colors, root / "one"))
    one = read_state_dict(root / "one" / "model.safetensors")

    def killed(label: str, done: int, total: int) -> None:
        if label == "training" and done == 2:
            os._exit(9)

    for parallel in ("ddp", "fsdp"):
        folder, norms = root / parallel, root / f"{parallel}-norms"
        ended = as_two(lambda rank: train(colors, folder, rank, parallel=parallel, progress=killed))  # noqa: B023
        resumed = as_two(lambda rank: train(colors, folder, rank, parallel=parallel, resume=True))  # noqa: B023
        straight = as_two(lambda rank: train(colors, norms / "mlp", rank, parallel=parallel))  # noqa: B023
        plain = as_two(lambda rank: train(colors, norms, rank, name="plain20", parallel=parallel))  # noqa: B023
        ranks = [distance(*(torch.load(f / f"{r}.pt", weights_only=True) for r in (0, 1))) for f in (folder, norms)]
        state = read_state_dict(folder / "model.safetensors")
        same = weights_of(folder) == weights_of(norms / "mlp")
        print(
            f"{parallel}: killed {9 in ended}, resumed {resumed}, straight {straight}, with norms {plain}, "
            f"ranks differ by {ranks}, resumed is straight {same}, from one process {distance(one, state):.6f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
