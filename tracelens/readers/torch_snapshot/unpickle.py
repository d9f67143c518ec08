"""Loading a file that nobody vouches for: plain data comes out, or an error; nothing runs."""

from __future__ import annotations

import json
import pickle
import re
from typing import IO, TYPE_CHECKING, Any, Final

from tracelens.readers.torch_snapshot.handed import RefusedError, shown

if TYPE_CHECKING:
    from pathlib import Path

_BUFFER_BYTES: Final = 1 << 20
_PADDING: Final = b"\0 \t\r\n"
HOW_TO_RECORD: Final = (
    "Record one: torch.cuda.memory._record_memory_history() before the work, "
    "torch.cuda.memory._dump_snapshot(FILE) after it."
)
_CHECKPOINT: Final = "is a model checkpoint (torch.save), no recording. " + HOW_TO_RECORD
_TORCH: Final = ("torch", "torch_utils", "numpy", "collections", "transformers", "accelerate")


class _Plain(pickle.Unpickler):
    """Makes numbers, texts, lists, tuples and dictionaries, and refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every class and function: this is the only way in which a pickle names one.

        Raises:
            RefusedError: always.
        """
        called = f"{shown(module)}.{shown(name)}"
        if module.partition(".")[0] in _TORCH:
            raise RefusedError(
                f"names {called}, as a model checkpoint does and a snapshot does not: "
                f"it was not executed. {HOW_TO_RECORD}"
            )
        raise RefusedError(
            f"names {called}, which could run code: nothing was executed. "
            "A snapshot holds plain data only; do not load this file elsewhere."
        )

    def persistent_load(self, pid: object) -> Any:
        """Refuse what lies outside of the file.

        Raises:
            RefusedError: always.
        """
        _ = pid
        raise RefusedError(
            "refers to data outside of the pickle (a persistent id), as a model checkpoint does "
            f"and a snapshot does not: nothing was executed. {HOW_TO_RECORD}"
        )


def loaded(path: Path) -> tuple[Any, int]:
    """Return what a file holds, and how many bytes after its end were not read.

    Raises:
        RefusedError: it holds more than plain data, is cut off, damaged, or something else.
        MemoryError: it needs more memory than there is.
    """
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        head = file.read(64)
        file.seek(0)
        if not head.strip(_PADDING):
            raise RefusedError(f"holds nothing. {HOW_TO_RECORD}")
        if head.startswith(b"PK\x03\x04"):
            raise RefusedError(_CHECKPOINT)
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if text.startswith(b"<"):
            raise RefusedError(
                "is a web page. The memory viewer's page is made from a snapshot: give the "
                ".pickle file itself (torch.cuda.memory._dump_snapshot writes one)."
            )
        if text.startswith((b"{", b"[")):
            return _from_json(file), 0
        return _from_pickle(file)


def _from_pickle(file: IO[bytes]) -> tuple[Any, int]:
    try:
        content = _Plain(file, encoding="utf-8", errors="replace").load()
    except (RefusedError, MemoryError):
        raise
    except EOFError:
        raise RefusedError("is cut off: its pickle has no end. Copy or record it again.") from None
    except Exception as error:
        if "truncated" in str(error):
            raise RefusedError(
                "is cut off: its pickle has no end. Copy or record it again."
            ) from None
        raise RefusedError(
            f"is a damaged pickle ({shown(str(error))}). Copy or record it again."
        ) from error
    if type(content) is int:
        raise RefusedError(_CHECKPOINT)
    return content, _left(file)


def _left(file: IO[bytes]) -> int:
    """Return how many bytes follow the pickle, less padding (the viewer's pages have some).

    Raises:
        RefusedError: they are another pickle.
    """
    left = 0
    while block := file.read(_BUFFER_BYTES):
        if not left and re.match(rb"\x80[\x02-\x05]", block.lstrip(_PADDING)):
            raise RefusedError(
                "holds two pickles, one after the other. Write every snapshot to a file of its own."
            )
        left += len(block) if left else len(block.lstrip(_PADDING))
    return left


def _from_json(file: IO[bytes]) -> Any:
    frames: dict[tuple[object, ...], dict[str, Any]] = {}

    def shared(found: dict[str, Any]) -> dict[str, Any]:
        # JSON writes every frame out wherever it occurs: 33 times the pickle's size.
        if "filename" not in found:
            return found
        try:
            return frames.setdefault(tuple(found.items()), found)
        except TypeError:
            return found

    text = file.read().decode("utf-8-sig", "replace").rstrip("\0")
    try:
        return json.loads(text, object_hook=shared)
    except RecursionError:
        raise RefusedError("is JSON nested too deeply to be a snapshot.") from None
    except ValueError as error:
        raise RefusedError(
            f"is damaged JSON ({shown(str(error))}). Copy or record it again."
        ) from error
