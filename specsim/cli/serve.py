"""`specsim serve`: a plan's target behind an HTTP interface that OpenAI's clients speak."""

from __future__ import annotations

from typing import Any

import click

from specsim.cli.running import draft_length_option, machine_options, models_options, numerics_option, open_to_talk
from specsim.errors import InputError
from specsim.planfile import read_plan
from specsim.runtime import executor
from specsim.units import KiB, parse


@click.command("serve")
@models_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: one that is free.")
@click.option("--name", metavar="NAME", help="Of the model, as clients ask for it; default: the plan's.")
@click.option("--queue", type=click.IntRange(min=0), default=64, show_default=True, help="Requests that may wait.")
@click.option("--max-body", default="1MiB", show_default=True, metavar="BYTES", help="Of a request.")
@click.option(
    "--drain",
    type=click.IntRange(min=0),
    default=30,
    show_default=True,
    help="Seconds that answers under way have when the server is asked to end.",
)
@numerics_option
@draft_length_option
@machine_options
def serve(plan_file: str, **options: Any) -> None:
    """Answer OpenAI's clients over HTTP with a plan's target.

    /v1/completions and /v1/chat/completions, whole or streamed; /v1/models, /health, and /metrics for Prometheus. As
    many requests as the plan has in flight are served at a time, others wait in line. There is no authentication.
    """
    plan = read_plan(plan_file)
    body_bytes = int(parse(options["max_body"], "bytes", where="--max-body"))
    if body_bytes < KiB:
        raise InputError(f"{body_bytes} bytes", where="--max-body", hint="give at least 1KiB")
    serving, app = executor("executor.server.serve"), executor("executor.server.app")
    opened = open_to_talk(plan, options)
    name = options["name"] or plan.case.target.name
    address = serving.Address(options["host"], options["port"])
    with (
        address.listen() as listening,
        executor("executor.service.opening").open_service(opened, options["queue"]) as service,
    ):
        monitor = executor("executor.server.monitor").Monitor(service)
        formatting = executor("executor.chatformat").ChatFormat(opened.tokenizer)
        architecture = opened.target.architecture
        made = app.Server(
            service, formatting, name, architecture.eos, architecture.model.vocab, monitor, body_bytes
        ).app()
        host, port = listening.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host  # IPv6
        click.echo(f"specsim: serving {name} at http://{host}:{port}/v1; end with Ctrl-C", err=True)
        serving.run(serving.Listener(made, service, options["drain"]), listening)
        if service.error is not None:
            raise service.error
