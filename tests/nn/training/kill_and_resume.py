"""Kill trainings with SIGKILL at several moments and go on; prints a line for each.

A process of its own, because it forks: the imports are paid once, and no thread of a test session is forked along.
Run: kill_and_resume.py COLORS FOLDER.
"""

import sys
from pathlib import Path

from small_training import die, in_child, newest_state, small_fit, weights_of

import edgecv.nn.training.checkpoints as checkpoints
import edgecv.nn.training.curves as curves
import edgecv.nn.training.loop as loop


def die_after_step(number: int):  # type: ignore[no-untyped-def]
    return lambda label, done, total: die() if label == "training" and done == number else None


def die_in_checkpoint(number: int) -> None:
    whole, count = checkpoints._save, [0]

    def save(state, path):  # type: ignore[no-untyped-def]
        count[0] += 1
        whole(state, path)
        if count[0] == number:
            path.write_bytes(path.read_bytes()[:1000])
            die()

    checkpoints._save = save


def die_after_artifact() -> None:
    save = loop.save_network

    def and_die(path, network):  # type: ignore[no-untyped-def]
        save(path, network)
        die()

    loop.save_network = and_die


def main(colors: Path, root: Path) -> None:
    curves.draw = lambda path, history: None
    straight = root / "straight"
    assert in_child(lambda: small_fit(colors, straight)) == 0
    moments = {
        "before the first checkpoint": lambda f: small_fit(colors, f, progress=die_after_step(1)),
        "in mid-epoch": lambda f: small_fit(colors, f, progress=die_after_step(4)),
        "while a checkpoint is written": lambda f: (die_in_checkpoint(2), small_fit(colors, f)),
        "between artifact and checkpoint": lambda f: (die_after_artifact(), small_fit(colors, f)),
    }
    for moment, work in moments.items():
        folder = root / moment.replace(" ", "-")
        killed = in_child(lambda work=work, folder=folder: work(folder))  # type: ignore[misc]
        resumed = in_child(lambda folder=folder: small_fit(colors, folder, resume=True))  # type: ignore[misc]
        same = weights_of(folder) == weights_of(straight)
        a, b = newest_state(folder)["learner"], newest_state(straight)["learner"]
        momenta = [x["optimizer"]["state"][0]["momentum_buffer"] for x in (a, b)]
        equal = bool((momenta[0] == momenta[1]).all())
        print(f"{moment}: killed {killed}, resumed {resumed}, weights {same}, momentum {equal}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
