"""Says how one case of the fuzzer ended: fine, clear, unclear, hang or silently wrong."""

import contextlib
import faulthandler
import random
import re
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import vilau_hf


FINE = "fine"
CLEAR = "clear"
UNCLEAR = "unclear"
HANG = "hang"
WRONG = "silently wrong"
CLASSES = (FINE, CLEAR, UNCLEAR, HANG, WRONG)
FAILURES = (UNCLEAR, HANG, WRONG)
# Seconds of computing after which a case is a hang. The slowest case computes for about 10 seconds.
TIME_LIMIT = 60
# Waiting counts less, because other processes can keep the cores busy.
WAITING = 5
PACKAGE = Path(vilau_hf.__file__).parent
CLEAR_TYPES = (ValueError, TypeError, OSError, ImportError)
# Files of torch and transformers with functions `_check...` that raise the text that our lines give them.
RAISING_FILES = ("torch/__init__.py", "transformers/utils/import_utils.py")
# Words with which an error says what is accepted.
ACCEPTED_WORDS = re.compile(
    r"\b(must|should|expected|supported|available|valid|at least|at most|one of|not used|needs?|required|requires|"
    r"cannot|could not|only|has to|have to|allowed|choose|unrecognized|unexpected keyword|not a|no such|does not|"
    r"do not support|greater|incorrect)\b",
    re.IGNORECASE,
)


class Wrong(AssertionError):
    """A result is not the one that an independent rule gives."""


class Printed(ValueError):
    """The command has printed an error and ended with an exit code."""


class Timeout(BaseException):
    """A case ran into its time limit. It is no `Exception`, so that no library catches it."""


@dataclass(frozen=True)
class Given:
    """
    A value of a case that is built when the case runs.

    Args:
        text (`str`): describes the value in reports.
        build (`Callable`): returns the value for a folder that only this case has.
    """

    text: str
    build: Callable[[Path], Any]

    def __repr__(self) -> str:
        return self.text


def build(value: Any, folder: Path) -> Any:
    """Returns a value in which each [`Given`] is built, also inside of lists, tuples and dictionaries."""
    if isinstance(value, Given):
        return value.build(folder)
    if type(value) in (list, tuple):
        return type(value)(build(item, folder) for item in value)
    if type(value) is dict:
        return {key: build(item, folder) for key, item in value.items()}
    return value


@dataclass
class Case:
    """
    One call of a public function.

    Args:
        call (`str`): name of the function in reports.
        function (`Callable`): the function. It takes `arguments` by keyword.
        arguments (`dict`): values or [`Given`].
        names (`tuple[str, ...]`): an error is clear only if it has one of these words. The names of `arguments` count
            too.
        is_valid (`bool`, *optional*): whether the call must return (`True`) or raise an error (`False`). `None` where
            no independent rule says it.
        check (`Callable`, *optional*): raises [`Wrong`] for a wrong result.
    """

    call: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    names: tuple[str, ...] = ()
    is_valid: bool | None = None
    check: Callable[[Any], None] | None = None

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return " ".join(f"{self.call}({arguments})".split())


@dataclass
class Outcome:
    """How a case ended: its class, and for failures the reason and the line that raised."""

    kind: str
    reason: str = ""
    place: str = ""
    case: str = field(default="", repr=False)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises [`Timeout`] in the block after some seconds of computing, or `WAITING` times as many of waiting."""

    def stop(signum: int, frame: Any) -> None:
        raise Timeout

    previous = signal.signal(signal.SIGALRM, stop)
    previous_of_process = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * WAITING)
    # Signals do not end a loop inside of a compiled function. Then only the end of the process is left.
    faulthandler.dump_traceback_later(2 * seconds * WAITING, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGPROF, previous_of_process)
        signal.signal(signal.SIGALRM, previous)


def run_case(case: Case, seconds: float = TIME_LIMIT) -> Outcome:
    """Runs a case in a new folder, which is also the working directory, and returns how it ended."""
    random.seed(0)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with time_limit(seconds):
                arguments = build(case.arguments, Path(name))
                outcome = _outcome(case, arguments, name)
        except Timeout:
            outcome = Outcome(HANG, f"no result after {seconds} seconds")
    outcome.case = repr(case).replace(name, "FOLDER")
    outcome.reason = outcome.reason.replace(name, "FOLDER")
    return outcome


def _outcome(case: Case, arguments: dict[str, Any], folder: str) -> Outcome:
    try:
        result = case.function(**arguments)
        if case.is_valid is False:
            return Outcome(WRONG, "was accepted, and no result is right")
        if case.check is not None:
            case.check(result)
    except Wrong as error:
        return Outcome(WRONG, " ".join(str(error).split()))
    except (Exception, SystemExit) as error:
        # A file in the folder of the case is a name too.
        is_clear = case.is_valid is not True and is_clear_error(error, (*case.arguments, *case.names, folder))
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return Outcome(CLEAR if is_clear else UNCLEAR, reason, raising_line(error))
    return Outcome(FINE)


def is_clear_error(error: BaseException, names: tuple[str, ...]) -> bool:
    """
    Returns whether an error says what was wrong.

    It is a `ValueError`, `TypeError`, `OSError` or `ImportError`, and its text has the name of an argument or a file.
    Names are compared as whole words. Our own lines raise it, or a library whose text also says what is accepted, by
    one of `ACCEPTED_WORDS`.
    """
    if not isinstance(error, CLEAR_TYPES):
        return False
    text = str(error)
    if not any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in names):
        return False
    return is_ours(error) or ACCEPTED_WORDS.search(text) is not None


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Returns the frames in which an error was raised, without functions that raise the text of their caller."""
    frames = list(traceback.extract_tb(error.__traceback__))
    while frames and frames[-1].filename.endswith(RAISING_FILES) and "_check" in frames[-1].name:
        frames.pop()
    return frames


def is_ours(error: BaseException) -> bool:
    """Returns whether a line of the package raised an error."""
    frames = _frames(error)
    return isinstance(error, Printed) or bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)


def raising_line(error: BaseException) -> str:
    """Returns the line that raised an error, and before it the last line of the package if that is another."""
    frames = _frames(error)
    places = [f"{_short(frame.filename)}:{frame.lineno}" for frame in frames[-1:]]
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    if ours and ours[-1] is not frames[-1]:
        places.insert(0, f"{_short(ours[-1].filename)}:{ours[-1].lineno}")
    return " -> ".join(places)


def _short(file: str) -> str:
    """Returns a file without the folders above its library."""
    path = Path(file)
    if path.is_relative_to(PACKAGE):
        return str(path.relative_to(PACKAGE.parent))
    return file.rpartition("site-packages/")[2]


__all__ = ["CLASSES", "FAILURES", "Case", "Given", "Outcome", "Wrong", "build", "run_case"]
