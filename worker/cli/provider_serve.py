"""`shoal provider serve`: a provider of this installation, as a process that other engines and fleets can use."""

from __future__ import annotations

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options


@click.command(
    "serve",
    help="Serve a provider of this installation over gRPC, as MIRASTACK plugins are served: it registers with the "
    "engine that MIRASTACK_ENGINE_ADDR names, and writes MIRASTACK_PLUGIN_PORT=<port> on stdout.\n\n"
    + examples(
        "shoal provider serve anthropic --as claude",
        "MIRASTACK_ENGINE_ADDR=engine:9090 shoal provider serve openai --as gateway --model gpt-4o",
    ),
)
@click.argument("name")
@click.option("--as", "served_as", metavar="NAME", help="The name to register; default: shoal-NAME.")
@click.option("--model", help="The model, where a call names none.  [env: AGENT_MODEL]")
@shoal_options
def serve_provider(call: Invocation, name: str, served_as: str | None, model: str | None) -> int:
    """Until SIGTERM or Ctrl-C."""
    import providers
    from worker.errors import BadSetting
    from worker.version import version

    settings = call.settings({"agent.model": model})
    provider = providers.create(name)
    try:
        providers.serve(provider, name=served_as or f"shoal-{name}", version=version(), config=settings.agent)
    except OSError as error:
        raise BadSetting(f"MIRASTACK_PLUGIN_ADDR: {error}") from error
    return OK
