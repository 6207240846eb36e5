"""Train with one and with two processes over gloo; prints what a test compares. Run: two_processes.py COLORS FOLDER.

A process of its own, because it forks and because a process group cannot be left behind in a test session.
"""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from small_training import in_child, small_fit, small_network

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


def train(colors: Path, folder: Path, rank: int = 0, *, keep: str = "", **changes: object) -> None:
    """Train plain20 without what differs between ranks on purpose (mixing), and keep each rank's final weights."""
    network = small_network("plain20")
    small_fit(colors, folder, network=network, mixup=0.0, cutmix=0.0, **changes)
    if keep:
        torch.save(network.module.state_dict(), folder / f"{keep}-{rank}.pt")


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[k].float() - b[k].float()).abs().max()) for k in a if "running" not in k)


def main(colors: Path, root: Path) -> None:
    print("one", in_child(lambda: train(colors, root / "one")))
    one = read_state_dict(root / "one" / "model.safetensors")
    for parallel in ("ddp", "fsdp"):
        folder = root / parallel
        folder.mkdir()

        def stopped(label: str, done: int, total: int) -> None:
            if label == "training" and done == 2:
                os._exit(9)

        ended = as_two(lambda rank: train(colors, folder, rank, parallel=parallel, progress=stopped))  # noqa: B023
        resumed = as_two(lambda rank: train(colors, folder, rank, keep="end", parallel=parallel, resume=True))  # noqa: B023
        straight = root / f"{parallel}-straight"
        straight.mkdir()
        whole = as_two(lambda rank: train(colors, straight, rank, keep="end", parallel=parallel))  # noqa: B023
        a, b = (torch.load(folder / f"end-{rank}.pt", weights_only=True) for rank in (0, 1))
        state = read_state_dict(folder / "model.safetensors")
        same = (folder / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
        print(
            f"{parallel}: stopped {9 in ended}, resumed {resumed}, straight {whole}, ranks differ by {distance(a, b)}, "
            f"resumed is straight {same}, from one process {distance(one, state):.4f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
