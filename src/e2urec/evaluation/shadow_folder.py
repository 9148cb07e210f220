"""Where an evaluation keeps shadow models for the next one, until a request removes them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.contents import fault_of, remove, write_contents
from ..core.durable import make_folders, publish_folder
from ..core.errors import RunError
from ..core.launch import wait_for_all
from ..core.locks import SharedFolder, private_folder
from ..core.process import first_process
from ..core.say import Say, no_words
from ..models import adapter_files
from ..models.backbone import Backbone
from ..models.recommender import Recommender
from ..models.sharing import is_true_for_all


@dataclass
class ShadowFolder:
    """Adapters of shadow models in a folder that several evaluations share.

    A request removes all that is there, whatever evaluations are under way. These go on with the
    shadows that they have, and keep no more: theirs are tuned on rows that are erased by now.

    Attributes:
        shared: the folder.
        part: name of the folder in it of shadows of the same rows and settings.
        key: of the MAC of each adapter's files.
        say: told of an adapter that was damaged, and when no more are kept.
        is_gone: whether the folder was removed, which is said once.
    """

    shared: SharedFolder
    part: str
    key: bytes
    say: Say = no_words
    is_gone: bool = False

    def load(self, number: int, untuned: Recommender) -> Recommender | None:
        """The shadow of this number, on the base; None where there is none that is whole."""
        tuned = None
        if first_process():
            # It looks before the others do, since it is the one that says what is damaged.
            tuned = self._read(number, untuned)
        wait_for_all()
        if not first_process():
            tuned = self._read(number, untuned)
        # Processes tune together: where one of them has no shadow, all tune it.
        is_everywhere = is_true_for_all(tuned is not None)
        if tuned is None or not is_everywhere:
            return None
        return Recommender(tuned, untuned.template, active=("original",), window=untuned.window)

    def _read(self, number: int, untuned: Recommender) -> Backbone | None:
        """The base with the adapter of this number; None where there is none that is whole."""
        with self._locked() as is_there:
            folder = self._place(number)
            if not is_there or not (folder.exists() or folder.is_symlink()):
                return None
            fault = fault_of(folder, self.key)
            if fault is not None:
                self.say(f"{fault}; the shadow model is made anew")
                remove(folder)
                return None
            backbone = untuned.backbone.with_shared_weights()
            lm = adapter_files.load_adapter(backbone.lm, folder, "original")
        return replace(backbone, lm=lm)

    def save(self, number: int, model: Recommender) -> None:
        """Write a shadow aside and rename it, so that a folder of this name is always whole.

        Of several processes the first writes.
        """
        if not first_process():
            return
        folder = self._place(number)
        with self._locked() as is_there:
            # Another evaluation may have been first: its shadow is of the same rows and seed.
            if not is_there or folder.exists():
                return
            try:
                make_folders(folder.parent)
                with private_folder(folder) as partial:
                    adapter_files.save_adapter(model.lm, "original", partial)
                    write_contents(partial, self.key)
                    publish_folder(partial, folder)
            except OSError as error:
                raise _cannot_be_kept(folder, error) from error

    def _place(self, number: int) -> Path:
        return self.shared.path / self.part / f"{number:02}"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        if self.is_gone:
            yield False
            return
        with self.shared.locked() as is_there:
            if not is_there:
                self.is_gone = True
                self.say(
                    f"'{self.shared.path}': was removed meanwhile, as a request does, or stays "
                    "locked; further shadow models of this evaluation are not kept"
                )
            yield is_there


@contextlib.contextmanager
def shared_shadows(path: Path) -> Iterator[SharedFolder]:
    """Open the folder before rows are read, so that no request comes in between unseen.

    Raises:
        RunError: the folder cannot be made.
    """
    with contextlib.ExitStack() as resources:
        try:
            shared = resources.enter_context(SharedFolder.open(path))
        except OSError as error:
            raise _cannot_be_kept(path, error) from error
        yield shared


def _cannot_be_kept(folder: Path, error: OSError) -> RunError:
    return RunError(f"'{folder}': the shadow model cannot be kept there ({error.strerror})")
