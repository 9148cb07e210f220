"""Every row of every user, guessed from the folders of a chain of requests without the key."""

from pathlib import Path

import numpy as np
import pytest

from privacy_chain import make_chain
from privacy_probes import Folder, told_rows

pytestmark = pytest.mark.torture


def test_no_row_of_anybody_can_be_told_from_any_folder_or_from_all_together(
    toy: Path, tmp_path: Path
):
    chain = make_chain(tmp_path, toy)
    runs = (chain.original, chain.first, chain.second)
    folders = [Folder.of(run.path) for run in runs]
    # What was there before a request, beside what is there after it.
    folders.append(Folder.of(*(run.path for run in runs)))
    rows = np.arange(len(chain.data)).tolist()
    bad = sum(len(told_rows(folder, chain.data, rows)) for folder in folders)
    tried = len(folders) * len(rows)
    print(f"tried {tried}, good {tried - bad}, bad {bad}")
    assert bad == 0
