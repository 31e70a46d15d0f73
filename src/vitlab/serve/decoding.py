"""Decoding: hostile images end up in processes of their own, with a bound on time and memory, and end at most those."""

import asyncio
import os
import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from vitlab.data.preprocess import ImageSpec
from vitlab.data.scan import cores
from vitlab.data.source import Pixels
from vitlab.errors import ImageError, VitlabError
from vitlab.serve.settings import ServeSettings
from vitlab.serve.worker import PIXELS, READY, Task

_START_SECONDS = 60.0
_WORDS = 1 << 16  # bytes of an answer without pixels, at most
_WALL = 6  # a decoder that a busy machine lets wait may take so many times its processor time, and is given up then


class Decoder:
    """Decodes and prepares images in processes that are replaced when an image ends them; `replaced` counts that."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings, self.replaced = settings, 0
        count = settings.decoders or max(2, cores())
        self._threads = ThreadPoolExecutor(count, "decoder")
        self._free: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._all = [_Process(settings.decode_bytes) for _ in range(count)]
        for process in self._all:
            process.wait_until_ready()
            self._free.put(process)

    @property
    def processes(self) -> list[int]:
        """The processes, by their numbers."""
        return [process.number for process in self._all]

    async def prepare(self, data: bytes, spec: ImageSpec, name: str = "image") -> Pixels:
        """Return the image in the file `data` as `spec.prepare` makes it: uint8 [height, width, 3]; `name` is for errors.

        Raises:
            ImageError: it cannot be decoded, must not be, or takes more time or memory than it may.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._prepare, data, spec, name)

    async def prepare_all(self, files: Sequence[bytes], spec: ImageSpec) -> list[Pixels]:
        """Return several images, each as `prepare` does; errors tell which by its number from 0.

        Raises:
            ImageError: one cannot be decoded, and the others are not waited for.
        """
        names = ["image"] if len(files) == 1 else [f"images[{index}]" for index in range(len(files))]
        tasks = [asyncio.create_task(self.prepare(data, spec, name)) for data, name in zip(files, names, strict=True)]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def end(self) -> None:
        """End the processes."""
        self._threads.shutdown(cancel_futures=True)
        for process in self._all:
            process.end()

    def _prepare(self, data: bytes, spec: ImageSpec, name: str) -> Pixels:
        process = self._free.get()
        try:
            return process.prepare(data, spec, self.settings.decode_seconds, name)
        except _EndedError as ended:
            self.replaced += 1
            process.start()
            raise ImageError(name, str(ended)) from None
        finally:
            self._free.put(process)


class _EndedError(Exception):
    """What an image did to the process that decoded it."""


class _Process:
    """A worker and the line to it."""

    def __init__(self, extra: int) -> None:
        self._extra = extra
        self._process: subprocess.Popen[bytes]
        self._line: Connection[Any, Any]
        self._ready = False
        self.start()

    @property
    def number(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """Start the worker, in place of the one before; it takes a moment until it hears."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "vitlab.serve.worker", str(theirs.fileno()), str(self._extra)]
        where = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env=where,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C reaches every process of the terminal's group
            )
        self._line, self._ready = Connection(ours.detach()), False

    def wait_until_ready(self) -> None:
        """Return when the worker hears.

        Raises:
            VitlabError: it does not start.
        """
        if not self._ready:
            try:
                if not (self._line.poll(_START_SECONDS) and self._line.recv_bytes() == READY):
                    raise EOFError
            except (EOFError, OSError):
                self.end()
                what = f"the process that decodes images does not start ({self._reason()})"
                raise VitlabError("serve", what, "is memory short?") from None
            self._ready = True

    def prepare(self, data: bytes, spec: ImageSpec, seconds: float, name: str) -> Pixels:
        """Return the prepared image.

        Raises:
            ImageError: the worker refuses it.
            _EndedError: the worker has ended.
        """
        self.wait_until_ready()
        task = Task(
            height=spec.height,
            width=spec.width,
            fit=spec.fit,
            interpolation=spec.interpolation,
            decoding=spec.decoding,
            limits=spec.limits,
            seconds=max(1, round(seconds)),
        )
        try:
            self._line.send_bytes(task.model_dump_json().encode())
            self._line.send_bytes(data)
            if not self._line.poll(_WALL * seconds):
                raise EOFError
            answer = self._line.recv_bytes(_WORDS + 3 * spec.height * spec.width)
        except (EOFError, OSError):
            self.end()
            raise _EndedError(self._reason()) from None
        if answer[:1] != PIXELS:
            raise ImageError(name, answer[1:].decode())
        return np.frombuffer(answer, np.uint8, offset=1).reshape(spec.height, spec.width, 3)

    def end(self) -> None:
        """End the worker, whatever it does."""
        self._line.close()
        try:
            self._process.wait(0.2)  # it ends by itself when its line is cut, unless it is busy
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _reason(self) -> str:
        code = self._process.returncode
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return "takes more time or memory to decode than an image may"
        return "ended the process that decoded it"
