"""The errors that tracelens raises on purpose; each class knows its exit status.

TracelensError
├── UsageError          2  the request itself is wrong
├── UnreadableError     3  the input cannot be read, or is not a trace
├── NothingToShowError  4  the input was read, and what was asked for is not in it
└── CaptureError        4  nothing, or not all that was asked for, could be recorded
"""

from __future__ import annotations


class TracelensError(Exception):
    """An error with a sentence for the user: what happened, and what to do."""

    exit_status = 1


class UsageError(TracelensError):
    """The command line or the call asks for something that does not exist."""

    exit_status = 2


class UnreadableError(TracelensError):
    """The input is missing, damaged or in no format that tracelens knows."""

    exit_status = 3


class NothingToShowError(TracelensError):
    """The input was read, but holds nothing of what was asked for."""

    exit_status = 4


class CaptureError(TracelensError):
    """A program could not be recorded."""

    exit_status = 4
