"""`e2urec` as a rank of `torchrun`; the file that is named first gets its exit status."""

import os
import sys
from pathlib import Path

from e2urec import cli


def main() -> None:
    """Run the command line after the first word."""
    place = f"{sys.argv.pop(1)}.{os.environ['RANK']}"
    status = 0
    try:
        cli.main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    Path(place).write_text(str(status))
    # At once: waiting for the other ranks belongs to the launcher.
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
