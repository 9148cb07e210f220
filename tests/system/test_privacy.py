"""Without the controller's key a run folder tells of no row, retained or erased."""

import hashlib
import subprocess
import sys
from pathlib import Path
from threading import Timer

import numpy as np
import pytest

from e2urec.api.evaluate import EvaluationOptions, evaluate
from e2urec.api.prepare import prepare
from e2urec.api.request import RequestCase, RequestOptions
from e2urec.api.stale_shadows import SHADOWS, remove_stale_shadows
from e2urec.api.train import train
from e2urec.api.unlearn import unlearn
from e2urec.core import locks
from e2urec.evaluation.roles import UNLEARNED
from e2urec.experiments.recipe import Recipe
from e2urec.runs.row_digests import row_digests
from e2urec.runs.split_index import SplitIndex
from e2urec.training.loop import silent
from key_files import KEY, OTHER_KEY, write_key
from privacy_chain import QUICK, Chain, make_chain
from privacy_probes import Folder, fingerprints, hashes_of, row_texts, told_rows

# A process that holds the lock of a folder until it is ended.
HOLD = """
import sys, time
from pathlib import Path
from e2urec.core.locks import FolderLock

lock = FolderLock.take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def chain(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return make_chain(tmp_path_factory.mktemp("chain"), toy)


def test_probe_detects_a_row_that_a_folder_tells(chain, tmp_path):
    """As rows.npz once told it: a salt, and hashes under it."""
    row = chain.rows_of(chain.retained)[0]
    text = next(row_texts(chain.data, row)).encode()
    salt = bytes(range(16))
    for number, digest in enumerate(
        [
            hashlib.blake2b(text, key=salt, digest_size=8).digest(),
            hashlib.sha256(text).hexdigest().encode(),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        np.savez(
            folder / "rows.npz",
            salt=np.frombuffer(salt, np.uint8),
            digests=np.frombuffer(b"other" + digest, np.uint8),
        )
        assert told_rows(Folder.of(folder), chain.data, [row, row + 1]) == [row]


def test_no_row_of_a_named_user_can_be_told_from_a_folder(chain):
    for run in (chain.original, chain.first, chain.second):
        folder = Folder.of(run.path)
        for user in (chain.retained, *chain.erased):
            assert told_rows(folder, chain.data, chain.rows_of(user)[:2]) == []


def test_erased_row_cannot_be_guessed_from_what_was_there_before_and_after(chain):
    folders = Folder.of(chain.original.path, chain.first.path, chain.second.path)
    for user in chain.erased:
        assert told_rows(folders, chain.data, chain.rows_of(user)[:2]) == []
    # The two indices have no hash in common: which ones went is not to be seen.
    indices = [SplitIndex.load(run.path, KEY) for run in (chain.original, chain.first)]
    assert not np.isin(indices[0].digests, indices[1].digests).any()


def test_nothing_is_a_fingerprint_of_the_data_with_or_without_the_erased_rows(chain):
    data = chain.data
    erased = np.isin(np.arange(len(data)), chain.rows_of(chain.erased[0]))
    folders = Folder.of(chain.original.path, chain.first.path, chain.second.path)
    for rows in (data, data.without(erased)):
        assert not folders.has_any(fingerprints(rows))


def test_no_file_of_an_unlearned_run_holds_an_erased_users_id_prompt_or_hash(chain):
    folder = Folder.of(chain.first.path)
    assert not folder.mentions(chain.erased[0])
    assert chain.prompts
    assert not any(folder.mentions(prompt) for prompt in chain.prompts)
    assert not folder.has_any(hashes_of([chain.erased[0]], folder.salts))
    # Nor does the original's: no user is named anywhere.
    assert not Folder.of(chain.original.path).mentions("customer-")
    # With the key the rows that stay are found, and those that went are not.
    index = SplitIndex.load(chain.first.path, KEY)
    data = chain.data
    is_indexed = np.isin(row_digests(data, index.key, np.arange(len(data))), index.digests)
    assert np.flatnonzero(~is_indexed).tolist() == chain.rows_of(chain.erased[0])


def test_shadow_models_that_saw_a_row_go_when_it_is_erased_and_that_is_told(chain):
    assert not (chain.first.path / SHADOWS).exists()
    (sentence,) = chain.sentences
    assert f"removed '{chain.first.path / SHADOWS}'" in sentence
    assert len(chain.shadow_folders) == 1


def test_no_weight_and_no_figure_depends_on_the_key(chain, tmp_path):
    recipe = Recipe.build(chain.original.record.recipe, place="run")
    key = write_key(tmp_path / "other.key", OTHER_KEY)
    original = train(recipe, tmp_path / "original", key=key)
    (tmp_path / "request.txt").write_text(chain.erased[0])
    options = RequestOptions(file=tmp_path / "request.txt", key=key)
    first = unlearn(original, tmp_path / "first", QUICK, options)
    for run, expected in ((original, chain.original), (first, chain.first)):
        for name, file in expected.record.files.items():
            if name.endswith(".safetensors"):
                assert run.record.files[name] == file
            if name in ("rows.npz", "scores.npz", "answers.npz"):
                assert run.record.files[name].bytes == file.bytes
                assert run.record.files[name].sha256 != file.sha256


def test_shadow_models_go_from_the_run_that_prepare_copied_and_a_moved_one_is_told(chain, tmp_path):
    earlier = unlearn(chain.original, tmp_path / "first", QUICK, RequestOptions(ratio=0.1, seed=5))
    prepared = prepare(earlier, tmp_path / "prepared", ["scores.pairs=1"])
    (earlier.path / SHADOWS).mkdir()
    told: list[str] = []
    options = RequestOptions(ratio=0.1, say=told.append)
    unlearn(prepared, tmp_path / "second", QUICK, options)
    assert not (earlier.path / SHADOWS).exists()
    assert f"removed '{earlier.path / SHADOWS}'" in told[0]
    earlier.path.rename(tmp_path / "moved")
    told.clear()
    unlearn(prepared, tmp_path / "third", QUICK, options)
    assert [text.partition(";")[0] for text in told] == [f"'{earlier.path}': is not there any more"]


def request_of(chain: Chain, number: int, told: list[str]) -> RequestOptions:
    """One of the two requests of the chain, for a training user each."""
    file = chain.first.path.with_name(f"{number}.txt")
    return RequestOptions(file=file, say=told.append)


def test_evaluation_under_way_brings_no_shadow_models_back_that_a_request_removed(chain):
    folder = chain.first.path / SHADOWS
    removed: list[str] = []
    told: list[str] = []
    later = RequestCase.open(chain.first, request_of(chain, 1, removed), silent)

    def erase(phase: str, *_: object) -> None:
        """The later request, while the second shadow is being trained."""
        if phase == "shadow 01" and not removed:
            assert len(list(folder.glob("*/00"))) == 1
            remove_stale_shadows(later)
            assert not folder.exists()

    options = EvaluationOptions(shadows=2, say=told.append)
    request = request_of(chain, 0, told)
    results = evaluate(chain.first, request=request, options=options, progress=erase)
    assert results.verdicts[UNLEARNED].basis == "shadows"
    assert f"removed '{folder}'" in removed[0]
    assert not folder.exists()
    assert [text for text in told if "meanwhile" in text] == [
        f"'{folder}': was removed meanwhile, as a request does, or stays locked; further shadow "
        "models of this evaluation are not kept"
    ]


def test_request_waits_for_whoever_writes_a_shadow_model_and_tells_who_never_ends(
    chain, monkeypatch
):
    folder = chain.first.path / SHADOWS
    folder.mkdir()
    told: list[str] = []
    later = RequestCase.open(chain.first, request_of(chain, 1, told), silent)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        monkeypatch.setattr(locks, "LOCK_SECONDS", 0.2)
        remove_stale_shadows(later)
        assert folder.is_dir()
        assert "cannot be removed (another process keeps it locked); remove it" in told[0]
        monkeypatch.setattr(locks, "LOCK_SECONDS", 60.0)
        Timer(0.5, holder.terminate).start()
        remove_stale_shadows(later)
    assert not folder.exists()
    assert f"removed '{folder}'" in told[1]


def test_shadow_models_stay_when_they_saw_none_of_the_rows(chain, tmp_path):
    request = RequestOptions(ratio=0.1, seed=5)
    first = unlearn(chain.original, tmp_path / "first", QUICK, request)
    (first.path / SHADOWS).mkdir()
    case = RequestCase.open(first, RequestOptions(ratio=0.1), silent)
    split, data = case.space.split, case.parts.forget.interactions
    read = split.train.visible_rows() | split.unseen.visible_rows()
    row = np.setdiff1d(split.test.rows, np.flatnonzero(read))[0]
    user, item = data.user_ids[int(data.user[row])], data.item_ids[int(data.item[row])]
    (tmp_path / "row.csv").write_text(f"user,item\n{user},{item}\n")
    named = (data.user == data.user[row]) & (data.item == data.item[row])
    assert not (named & read).any()
    unlearn(first, tmp_path / "second", QUICK, RequestOptions(file=tmp_path / "row.csv"))
    assert (first.path / SHADOWS).is_dir()
