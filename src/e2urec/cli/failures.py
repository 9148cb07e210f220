"""What a user is told of an error that is not of our own making: one line, with a remedy."""

from ..core.disk import is_full

# A value may be a text of megabytes; its beginning tells which it is.
LONGEST_WORD = 200
# Bytes that a terminal, a log and a chat show whole.
LONGEST_LINE = 900
MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cublas_status_alloc_failed",
)
"""What PyTorch's allocators, and cuBLAS, say of memory in errors without a type of their own."""


def failure_line(error: BaseException) -> str | None:
    """What to say of an error that the machine is to blame for; None: it is a bug of ours."""
    if is_memory_error(error):
        return (
            "out of memory; lower tuning.schedule.batch_size, the method's batch_size, "
            "model.window or an adapter's rank, or take a smaller model"
        )
    name = getattr(error, "filename", None)
    place = f"'{name}'" if name else "disk"
    if is_full(error):
        return f"{place}: no space left; free some and run again"
    if isinstance(error, BrokenPipeError):
        return "standard output: was closed before all of it was written"
    if not isinstance(error, OSError):
        return None
    reason = error.strerror or type(error).__name__
    return f"{place}: {reason}; name a file or folder that can be read and written"


def is_memory_error(error: BaseException) -> bool:
    """Whether memory ran out, on the CPU or on a GPU."""
    if isinstance(error, MemoryError):
        return True
    # torch.OutOfMemoryError is a RuntimeError, and PyTorch is not loaded to ask.
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in MEMORY_WORDS)


def one_line(text: str) -> str:
    """`text` in one line that any terminal can print: no codes, no halves of letters, no novels."""
    words = []
    for word in text.split():
        printable = "".join(map(_printable, word))
        is_long = len(printable) > LONGEST_WORD
        words.append(f"{printable[:LONGEST_WORD]}…" if is_long else printable)
    line = " ".join(words)
    if len(line) <= LONGEST_LINE:
        return line
    # The place stands at the beginning and the remedy at the end.
    half = LONGEST_LINE // 2
    return f"{line[:half]} … {line[-half:]}"


def _printable(letter: str) -> str:
    # A half of a letter, as a broken file name holds, is not printable either.
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode()
