"""A worker as a child process: `python -m ape_stream.batch.child`.

Standard input has a line of JSON for the setup and then one for each task; the former standard
output takes a line for each event. The process ends when its standard input does, even in the
middle of a task: with the run that started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from queue import SimpleQueue
from typing import IO, Any

from ape_stream.batch.job import Setup, Task
from ape_stream.batch.memory import limit_fragmentation
from ape_stream.batch.worker import Worker

__all__ = ["main"]


def main() -> None:
    """Work until standard input ends."""
    limit_fragmentation()
    # What a library prints must not come between our lines.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    worker = Worker(Setup.from_json(json.loads(sys.stdin.readline())))
    tasks: SimpleQueue[Task] = SimpleQueue()
    threading.Thread(target=_read_tasks, args=(sys.stdin, tasks), daemon=True).start()
    while True:
        task = tasks.get()

        def emit(
            kind: str, value: Any = None, *, retry: bool = False, number: int = task.number
        ) -> None:
            line = {"task": number, "kind": kind, "value": value, "retry": retry}
            # Escaped: the value may be the name of a file that is not UTF-8.
            events.write(json.dumps(line) + "\n")
            events.flush()

        worker.run(task, emit)


def _read_tasks(lines: IO[str], tasks: SimpleQueue[Task]) -> None:
    for line in lines:
        tasks.put(Task.from_json(json.loads(line)))
    # Not `sys.exit`: the main thread may be inside of a decoder that never returns.
    os._exit(0)


if __name__ == "__main__":
    main()
