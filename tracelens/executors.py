"""Where many files are read: in processes of this machine, or on an existing dask cluster."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import queue
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tracelens import __version__
from tracelens.errors import TracelensError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_POLL_S: Final = 0.2
_GRACE_S: Final = 1.0
_CONNECT_S: Final = 10
_WORKERS_S: Final = 60
_INSTALL: Final = "pip install 'tracelens-gpu[cluster]'"
_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)


@dataclass(frozen=True)
class Failed:
    """What stands for an answer that there is none of; ``text`` is a line that says why.

    ``error`` is set where the task itself raised one that is meant for the user.
    """

    text: str
    error: TracelensError | None = None


_LOST: Final = Failed("every worker that read it was ended (out of memory, perhaps)")


def each(
    function: Callable[[Item], Answer],
    items: Sequence[Item],
    *,
    scheduler: str | None = None,
    done: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Answer | Failed]:
    """Return the function's answers for all items, in order, computed side by side.

    Function, items and answers are pickled. A process that is lost is made anew and its item
    tried once more; the cluster does the same by rules of its own. An item that fails takes no
    other one with it. On Ctrl-C every process of ours ends.

    Args:
        function: a function of a module, which processes can import.
        items: a single one is computed in this process, unless there is a scheduler.
        scheduler: the address of a dask.distributed scheduler, such as tcp://host:8786.
        done: is told after each item how many are done, of how many.

    Raises:
        UsageError: no scheduler answers at the address, or its workers cannot compute for us.
    """
    if scheduler is not None:
        return _Cluster(scheduler).each(function, items, done)
    if len(items) < 2:
        return [guarded(function, item) for item in items]
    return _Crew(min(_cores(), len(items))).each(function, items, done)


def guarded(function: Callable[[Item], Answer], item: Item) -> Answer | Failed:
    """Return the function's answer, or what it failed for; bugs show where they are on demand."""
    try:
        return function(item)
    except TracelensError as error:
        return Failed(str(error), error)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 (panics of polars are no Exception)
        if os.environ.get("TRACELENS_DEBUG"):
            import traceback

            return Failed("".join(traceback.format_exception(error)))
        what = f"{type(error).__name__}: {error}"
        return Failed(f"that is a bug in tracelens {__version__}: {what}")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Crew:
    """Processes of this machine, each with a thread here that gives it one item after the other."""

    def __init__(self, workers: int) -> None:
        self._workers = [_Worker(max(1, _cores() // workers)) for _ in range(workers)]
        self._answers: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()

    def each(
        self,
        function: Callable[[Item], Answer],
        items: Sequence[Item],
        done: Callable[[int, int], None],
    ) -> list[Answer | Failed]:
        """Return the answers, in order."""
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for place in range(len(items)):
            waiting.put(place)

        def work(worker: _Worker) -> None:
            with suppress(queue.Empty):
                while True:
                    place = waiting.get_nowait()
                    self._answers.put((place, worker.call(function, items[place])))

        for worker in self._workers:
            threading.Thread(target=work, args=(worker,), daemon=True).start()
        found: dict[int, Any] = {}
        try:
            while len(found) < len(items):
                # Waiting without end could not be interrupted everywhere.
                with suppress(queue.Empty):
                    place, answer = self._answers.get(timeout=_POLL_S)
                    found[place] = answer
                    done(len(found), len(items))
        finally:
            self._end(now=len(found) < len(items))
        return [found[place] for place in range(len(items))]

    def _end(self, *, now: bool) -> None:
        """Let the processes go: when they have written what they have in hand, or at once."""
        pids = {worker.pid for worker in self._workers if worker.pid is not None}
        for worker in self._workers:
            worker.end()
        if now:
            _end_groups(pids)


class _Worker:
    """One process, which is made anew when it is lost; ``pid`` is None while there is none."""

    def __init__(self, threads: int) -> None:
        self.pid: int | None = None
        self._threads = threads
        self._pool: ProcessPoolExecutor | None = None
        self._ended = False

    def call(self, function: Callable[[Item], Answer], item: Item) -> Answer | Failed:
        """Return the answer of the process; where it is lost twice, what is known of that."""
        for _ in range(2):
            if self._ended:
                break
            try:
                return self._ready().submit(guarded, function, item).result()
            except BrokenProcessPool:
                self._close()
            except Exception as error:  # noqa: BLE001 (an answer that cannot be pickled, say)
                return Failed(f"{type(error).__name__}: {error}")
        return Failed("the process that read it was ended twice (out of memory, perhaps)")

    def end(self) -> None:
        """Let the process go when it has nothing more to do."""
        self._ended = True
        self._close()

    def _ready(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1,
                mp_context=get_context("spawn"),
                initializer=_begin,
                initargs=(self._threads,),
            )
            if hasattr(signal, "pthread_sigmask"):
                # The process inherits it: Ctrl-C is for us alone, even while it starts. Not
                # sooner: making the pool starts Python's tracker of resources, which undoes it.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            self.pid = self._pool.submit(os.getpid).result()
        return self._pool

    def _close(self) -> None:
        pool, self._pool, self.pid = self._pool, None, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin(threads: int) -> None:
    """Prepare a process before anything heavy is imported there.

    It leads a group of its own, so that what it starts ends with it.
    """
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if parent := parent_process():
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    """End this process after its parent, however that ended."""
    parent.join()
    _send(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    _send(os.getpid(), _KILL)


def _end_groups(pids: Iterable[int]) -> None:
    """End processes and what they have started: they may clear up first."""
    for pid in pids:
        _send(pid, signal.SIGTERM)
    until = time.monotonic() + _GRACE_S
    while time.monotonic() < until and {c.pid for c in active_children()} & {*pids}:
        time.sleep(_POLL_S / 10)
    for pid in pids:
        _send(pid, _KILL)


def _send(pid: int, number: int) -> None:
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


class _Cluster:
    """An existing dask.distributed cluster."""

    def __init__(self, address: str) -> None:
        self._address = address
        try:
            self._distributed: Any = importlib.import_module("distributed")
        except ImportError as error:
            raise UsageError(f"--scheduler needs dask: {_INSTALL}") from error

    def each(
        self,
        function: Callable[[Item], Answer],
        items: Sequence[Item],
        done: Callable[[int, int], None],
    ) -> list[Answer | Failed]:
        """Return the answers, in order."""
        self._knock()
        with _quiet():
            client = self._distributed.Client(
                self._address, timeout=_CONNECT_S, set_as_default=False
            )
            futures: list[Any] = []
            try:
                self._check(client)
                futures = [client.submit(guarded, function, item, pure=False) for item in items]
                answers = self._gathered(client, futures, done)
                for place in [i for i, answer in enumerate(answers) if answer == _LOST]:
                    # It may have been blamed for what another item did to a worker they shared.
                    futures = [client.submit(guarded, function, items[place], pure=False)]
                    answers[place] = self._gathered(client, futures)[0]
                return answers
            finally:
                with suppress(Exception):
                    client.cancel(futures)
                client.close()

    def _knock(self) -> None:
        """Refuse an address at which no scheduler answers: a Client would retry when it is gone."""
        link = self._distributed.Security().get_connection_args("client")

        async def identity() -> Any:
            async with self._distributed.rpc(self._address, connection_args=link) as scheduler:
                return await asyncio.wait_for(scheduler.identity(), _CONNECT_S)

        try:
            # In a thread: a notebook's own has a loop that runs already.
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(lambda: asyncio.run(identity())).result()
            if answer["type"] != "Scheduler":
                raise UsageError(
                    f"{self._address} is that of a {answer['type']}: name a scheduler."
                )
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise UsageError(
                f"No dask scheduler answers at {self._address}. Start one with `dask scheduler` "
                "and workers with `dask worker ADDRESS`; it prints its address."
            ) from error

    def _check(self, client: Any) -> None:
        """Refuse workers that have no tracelens, or another one."""
        with suppress(TimeoutError):  # they may be starting; without any it is given up later
            client.wait_for_workers(1, timeout=min(_CONNECT_S, _WORKERS_S))
        try:
            said = client.run(version)
        except Exception as error:
            raise UsageError(
                f"The workers of {self._address} cannot compute for us: {_first_line(error)} "
                f"Install tracelens-gpu {__version__} with its extra [cluster] there, and on the "
                "scheduler's machine."
            ) from error
        other = sorted({version for version in said.values() if version != __version__})
        if other:
            raise UsageError(
                f"Workers of {self._address} have tracelens {', '.join(other)}, and this is "
                f"{__version__}. Install the same everywhere."
            )

    def _gathered(
        self,
        client: Any,
        futures: Sequence[Any],
        done: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> list[Any]:
        places = {future.key: place for place, future in enumerate(futures)}
        answers: dict[int, Any] = {}
        alone = threading.Timer(_WORKERS_S, self._give_up_without_workers, (client, futures))
        alone.daemon = True
        alone.start()
        try:
            for future in self._distributed.as_completed(futures, loop=client.loop):
                answers[places[future.key]] = self._answer(future)
                done(len(answers), len(futures))
        finally:
            alone.cancel()
        return [answers[place] for place in range(len(futures))]

    def _answer(self, future: Any) -> Any:
        if future.status == "cancelled":
            return Failed(f"the scheduler at {self._address} was lost, or has no workers")
        if future.status == "finished":
            return future.result()
        error = future.exception()
        if type(error).__name__ == "KilledWorker":
            return _LOST
        return Failed(f"{type(error).__name__}: {_first_line(error)}")

    def _give_up_without_workers(self, client: Any, futures: Sequence[Any]) -> None:
        with suppress(Exception):
            if not client.scheduler_info()["workers"]:
                client.cancel(futures)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep dask from logging of workers that come and go: it would stand between our lines."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def version() -> str:
    """Return the version of tracelens in this process."""
    return __version__


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
