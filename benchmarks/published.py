"""The published algorithm of E2URec, written plainly: what the speed of ours is measured against.

Three whole models are in memory, and the augmented one is tuned in full. Warm-up and joint passes
ask every teacher anew at each step, and the student once for each of its losses. Batches are random
and padded to their longest row; everything is float32. It differs from the released code where that
is wrong (docs/evidence/parity.md): padding is masked, and only the answer's position goes through
the output head, which makes it faster and not slower. Free memory goes back to the system as often
as in ours, so that peaks compare.
"""

import contextlib
import copy
import time
from collections.abc import Iterator

import torch

from e2urec.core.allocator import release_free_memory
from e2urec.core.seeding import stream
from e2urec.models import adapter_algebra, adapters
from e2urec.models.adapters import LoRA
from e2urec.models.batches import Batch, Examples
from e2urec.models.recommender import Recommender
from e2urec.training.supervised import fully_trainable
from e2urec.unlearning.losses import cross_entropy, forgetting_teacher, kl_divergence

# Settings of the released code.
LORA = LoRA(rank=16, alpha=32, dropout=0.05, targets="attention")
BATCH_SIZE = 16
ALPHA = 2.0
BETA = 0.4
LEARNING_RATE = 1e-3
AUGMENT_RATE = 5e-5


class Published:
    """The algorithm on one original.

    Attributes:
        original: the recommender that is asked to forget; its weights are only read.
        augmented: the original tuned further on D_f, once `unlearn` has made it.
        seconds: by phase.
    """

    augmented: Recommender

    def __init__(
        self,
        original: Recommender,
        forget: Examples,
        retain: Examples,
        *,
        seed: int,
        embeddings: bool = True,
    ) -> None:
        """Take what `unlearn` needs.

        Args:
            original: the recommender that is asked to forget.
            forget: D_f.
            retain: D_r.
            seed: of batches and adapter.
            embeddings: whether the augmented model's are tuned, as the original's were.
        """
        self.original = original
        self.forget = forget
        self.retain = retain
        self.seed = seed
        self.embeddings = embeddings
        # The released code computes every position in every block.
        original.answer_only = False
        self.seconds: dict[str, float] = {}

    def unlearn(self, *, augment: float, warmup: float, joint: float) -> Recommender:
        """The student, merged.

        Args:
            augment: passes over D_f that make the augmented model.
            warmup: passes over D_f with the forgetting loss alone.
            joint: passes over D_f with both losses.
        """
        with self._phase("augmented"):
            self.augmented = self._augment(augment)
        student = copy.deepcopy(self.original)
        student.lm = adapters.attach(student.lm, "student", LORA, seed=self.seed)
        with student.using(["student"], train="student") as parameters:
            optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
            with self._phase("warmup"):
                steps = self._step_count(warmup)
                self._train(student, optimizer, steps, joint=False)
            with self._phase("joint"):
                steps = self._step_count(joint)
                self._train(student, optimizer, steps, joint=True)
        student.lm = adapter_algebra.merge(student.lm, ["student"])
        return student

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        """The seconds inside count for a phase."""
        start_time = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start_time
        release_free_memory()

    def _step_count(self, passes: float) -> int:
        row_count = passes * len(self.forget)
        return round(row_count / BATCH_SIZE)

    def _batches(self, model: Recommender, rows: Examples, name: str) -> Iterator[Batch]:
        """Random rows without end, padded to the longest of a batch."""
        epoch = 0
        while True:
            random = stream(self.seed, name, epoch)
            order = random.permutation(len(rows))
            for start in range(0, len(order), BATCH_SIZE):
                index = order[start : start + BATCH_SIZE]
                yield model.collate(rows, index)
            epoch += 1

    def _augment(self, passes: float) -> Recommender:
        """A full copy of the original, tuned further on D_f."""
        model = copy.deepcopy(self.original)
        batches = self._batches(model, self.forget, "augmented")
        # As a teacher it answers without dropout, which is on inside alone.
        with fully_trainable(model, embeddings=self.embeddings) as parameters:
            optimizer = torch.optim.AdamW(parameters, lr=AUGMENT_RATE)
            for step in range(self._step_count(passes)):
                batch = next(batches)
                tokens = model.verbaliser.tokens(batch.labels)
                logits = model(batch)
                loss = cross_entropy(logits, tokens)
                self._step(optimizer, loss, step)
        return model

    def _train(
        self, student: Recommender, optimizer: torch.optim.Optimizer, steps: int, *, joint: bool
    ) -> None:
        """Take steps on the forgetting loss, or on both."""
        forget = self._batches(student, self.forget, f"forget {joint}")
        retain = self._batches(student, self.retain, f"retain {joint}")
        for step in range(steps):
            loss = self._forget_loss(student, next(forget))
            if joint:
                remember_loss = self._remember_loss(student, next(retain))
                loss = BETA * loss + (1 - BETA) * remember_loss
            self._step(optimizer, loss, step)

    def _step(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor, step: int) -> None:
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        # After as many steps as in ours: the first release is after the first eight.
        release_free_memory(step + 1)

    def _forget_loss(self, student: Recommender, batch: Batch) -> torch.Tensor:
        """`L_FGT = KL(softmax(z_F) ‖ p_θ)` on a batch of D_f."""
        with torch.no_grad():
            original_logits = self.original(batch)
            augmented_logits = self.augmented(batch)
            target = forgetting_teacher(
                original_logits, augmented_logits, ALPHA, "raw", student.verbaliser
            )
        student_logits = student(batch)
        return kl_divergence(target, student_logits)

    def _remember_loss(self, student: Recommender, batch: Batch) -> torch.Tensor:
        """`L_REM = KL(p_o ‖ p_θ) + CE(y, p_θ)` on a batch of D_r."""
        with torch.no_grad():
            original_logits = self.original(batch)
        # The student answers once for each loss, as in the released code.
        divergence = kl_divergence(original_logits, student(batch))
        tokens = student.verbaliser.tokens(batch.labels)
        answer_loss = cross_entropy(student(batch), tokens)
        return divergence + answer_loss
