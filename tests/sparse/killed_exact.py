"""An exact training that saves after each step; as a program it sleeps before a step, to be killed there.

``python killed_exact.py FILE STEP``: from the start, to sleep before that step.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from hw.spec.training import Hyper
from sw.sparse import ExactTrainer, LossScaling, export
from tests.sparse.exact_networks import batch, network, sgd

STEPS = 7


def trainer() -> ExactTrainer:
    """Its loss scale doubles after steps 2, 4 and 6."""
    model = network("vgg")
    return ExactTrainer(export(model, sgd(model), batch("vgg")[0]), scaling=LossScaling(initial=64, growth_steps=2))


def run(training: ExactTrainer, path: Path | None = None, stop: int = STEPS, sleep_before: int = STEPS) -> None:
    """Steps of a rate that falls, up to a number of them in all."""
    while (step := len(training.history)) < stop:
        if step == sleep_before:
            time.sleep(120)
        images, labels = batch("vgg", 100 + step)
        training.step(images, labels, Hyper(learning_rate=0.1 / (1 + step), weight_decay=1e-3))
        if path is not None:
            training.save(path)


if __name__ == "__main__":
    run(trainer(), Path(sys.argv[1]), sleep_before=int(sys.argv[2]))
