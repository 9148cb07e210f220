"""The published algorithm of E2URec, written plainly: what the speed of ours is measured against.

Three whole models in memory; the augmented one is tuned in full; warm-up and joint passes ask every teacher anew at
each step, and the student once for each of its losses; batches are random and padded to their longest row; float32.
It differs from the released code where that is wrong (docs/evidence/parity.md): padding is masked, and only the answer's
position goes through the output head, which makes it faster and not slower.
"""

import copy
import time
from collections.abc import Callable, Iterator

import torch

from e2urec.core.seeding import stream
from e2urec.models import adapter_algebra, adapters
from e2urec.models.adapters import LoRA
from e2urec.models.batches import Batch, Examples
from e2urec.models.recommender import Recommender
from e2urec.unlearning.losses import cross_entropy, forgetting_teacher, kl_divergence

LORA = LoRA(rank=16, alpha=32, dropout=0.05, targets="attention")
BATCH, ALPHA, BETA = 16, 2.0, 0.4


class Published:
    """The algorithm on one original; `seconds` by phase."""

    def __init__(
        self, original: Recommender, forget: Examples, retain: Examples, seed: int
    ) -> None:
        self.original, self.forget, self.retain, self.seed = original, forget, retain, seed
        original.answer_only = False
        self.seconds: dict[str, float] = {}

    def unlearn(self, *, augment: float, warmup: float, joint: float) -> Recommender:
        """Passes over D_f that make the augmented model, warm the student up, and teach it both losses."""
        self.augmented = self.timed("augmented", self._augment, augment)
        student = copy.deepcopy(self.original)
        student.lm = adapters.attach(student.lm, "student", LORA, seed=self.seed)
        with student.using(["student"], train="student") as parameters:
            optimizer = torch.optim.AdamW(parameters, lr=1e-3)
            self.timed("warmup", self._train, student, optimizer, self._steps(warmup), False)
            self.timed("joint", self._train, student, optimizer, self._steps(joint), True)
        student.lm = adapter_algebra.merge(student.lm, ["student"])
        return student

    def timed(self, phase: str, work: Callable[..., object], *given: object) -> object:
        """What `work` returns; its seconds count for `phase`."""
        started = time.perf_counter()
        result = work(*given)
        self.seconds[phase] = time.perf_counter() - started
        return result

    def _steps(self, passes: float) -> int:
        return round(passes * len(self.forget) / BATCH)

    def _batches(self, model: Recommender, rows: Examples, name: str) -> Iterator[Batch]:
        """Random rows without end, padded to the longest of a batch."""
        epoch = 0
        while True:
            order = stream(self.seed, name, epoch).permutation(len(rows))
            for start in range(0, len(order), BATCH):
                yield model.collate(rows, order[start : start + BATCH])
            epoch += 1

    def _augment(self, passes: float) -> Recommender:
        model = copy.deepcopy(self.original)
        model.lm.train().requires_grad_(True)
        optimizer = torch.optim.AdamW(model.lm.parameters(), lr=5e-5)
        batches = self._batches(model, self.forget, "augmented")
        for _ in range(self._steps(passes)):
            batch = next(batches)
            cross_entropy(model(batch), model.verbaliser.tokens(batch.labels)).backward()
            optimizer.step()
            optimizer.zero_grad()
        model.lm.eval().requires_grad_(False)
        return model

    def _train(
        self, student: Recommender, optimizer: torch.optim.Optimizer, steps: int, joint: bool
    ) -> None:
        forget = self._batches(student, self.forget, f"forget {joint}")
        retain = self._batches(student, self.retain, f"retain {joint}")
        for _ in range(steps):
            batch = next(forget)
            with torch.no_grad():
                own, gained = self.original(batch), self.augmented(batch)
                target = forgetting_teacher(own, gained, ALPHA, "raw", student.verbaliser)
            loss = kl_divergence(target, student(batch))
            if joint:
                other = next(retain)
                with torch.no_grad():
                    remembered = self.original(other)
                divergence = kl_divergence(remembered, student(other))
                answer = cross_entropy(student(other), student.verbaliser.tokens(other.labels))
                loss = BETA * loss + (1 - BETA) * (divergence + answer)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
