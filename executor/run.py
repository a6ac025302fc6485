"""Run a plan on real checkpoints and prompts: outputs as requests finish, metrics and both timelines at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

from executor.admission import check_fit
from executor.checkpoint.checkpoint import Checkpoint
from executor.desk import Desk
from executor.identity import asked
from executor.job import Job
from executor.journal import JOURNAL, Journal
from executor.metrics import Earlier, Metrics, Predicted
from executor.opening import in_ram, memory_told, open_models
from executor.options import RunOptions, RunResult
from executor.preflight import check_disk, check_machine
from executor.process import keep_heap_small, peak_bytes, resident_bytes
from executor.progress import ProgressLine
from executor.prompts import check_against_plan, read_prompts
from executor.ranks.crew import Crew
from executor.ranks.messages import Share
from executor.ranks.stage import stage_of
from executor.ranks.together import fullest, moved, timeline
from executor.replay import replay
from executor.requests import Request
from executor.resume import ended, open_outputs
from executor.speculation.sampling import Sampling
from executor.tokenizer import Tokenizer
from specsim.answer import Plan
from specsim.errors import InputError
from specsim.timeline import Timeline, utilisation, waiting_on
from specsim.timeline.trace import write_trace


def run(plan: Plan, options: RunOptions, crew: Crew | None = None) -> RunResult:
    """Do what the plan says; outputs.jsonl, metrics.json and trace.json go to `options.out`. Where there are other
    ranks, a `crew`, this is the first.

    With `options.resume` goes on with the run that was begun there. Raises InputError for bad input, where it can be
    known before anything is allocated. What has finished before an error is in outputs.jsonl.
    """
    opened = open_models(plan, options.setting, stage_of(plan, crew.world if crew is not None else None))
    devices, target, draft, tokenizer = opened.devices, opened.target, opened.draft, opened.tokenizer
    requests = _requests(plan, options, target, tokenizer)
    keep_heap_small()
    itself = resident_bytes()
    decode = tokenizer.decode if tokenizer else None

    def check_all() -> None:
        if not options.anyway:
            check_machine(plan.case.machine, devices)
        opened.check_room(range(crew.world.local_ranks) if crew is not None else range(1))
        check_disk(options.out, plan, requests, text=tokenizer is not None)

    goes_on = options.resume and (options.out / JOURNAL).is_file()
    if not goes_on:
        check_all()  # before a file is made
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(options.out))
        if goes_on and not journal.over:
            check_all()
        begun = asked(plan, options, target, draft, requests)
        writer, requests, earlier = open_outputs(journal, begun, requests, options, decode)
        stack.callback(writer.close)
        if (metrics := ended(journal, writer, requests, earlier)) is not None:
            if crew is not None:
                crew.dismiss()
            return RunResult(metrics, writer.path, (), over=True)
        line = stack.enter_context(ProgressLine())
        desk = Desk(journal, writer, line, len(requests))
        began = time.perf_counter()
        with memory_told():
            job = stack.enter_context(opened.load())
            engine = job.engine
            if crew is not None:
                crew.watch(engine)
            load_s = time.perf_counter() - began
            job.batches.record = journal.record
            try:
                job.run(requests, lambda: desk.tick(job), lambda what: line.say(f"specsim: {what}"))
            except BaseException:
                with suppress(InputError):  # the first error is the one to tell
                    desk.tick(job)  # what has finished is kept,
                    if crew is not None:
                        crew.break_off()  # or the engine's threads would wait for other ranks
                    engine.stop()
                    desk.tick(job)  # and what finishes in the tasks that run now
                raise
        shares = [Share.of(engine, job.ledger), *(crew.dismiss() if crew is not None else [])]
        measured = timeline(shares)
        replayed = replay(plan, job.waves, in_turn=not devices.cuda)
        metrics = _metrics(plan, options, job, load_s, shares, measured, replayed.seconds, itself, earlier)
        write_trace(options.out / "trace.json", {"predicted": replayed.timeline, "measured": measured.from_zero()})
        writer.sync()
        metrics.write(options.out)  # the last: who finds it finds all
        journal.end()
    return RunResult(metrics, writer.path, tuple(desk.samples), tuple(job.waves))


def _requests(plan: Plan, options: RunOptions, target: Checkpoint, tokenizer: Tokenizer | None) -> list[Request]:
    arch = target.architecture
    requests = read_prompts(
        options.prompts,
        tokenizer=tokenizer,
        vocab=arch.model.vocab,
        positions=arch.model.max_positions,
        max_new_tokens=options.max_new_tokens or plan.case.workload.output_tokens,
        stop=options.stop,
        eos=() if options.ignore_eos else arch.eos,
        limit=options.limit,
    )
    check_against_plan(requests, plan.case.workload)
    check_fit(requests, plan.decision.policy)
    sampling = Sampling(options.temperature, options.top_k, options.top_p, options.seed)
    return [replace(request, sampling=sampling) for request in requests]


def _metrics(
    plan: Plan,
    options: RunOptions,
    job: Job,
    load_s: float,
    shares: Sequence[Share],
    measured: Timeline,
    replayed_s: float,
    process_bytes: int | None,
    earlier: Earlier | None,
) -> Metrics:
    acceptance = job.batches.acceptance
    return Metrics(
        requests=job.batches.served,
        useful_tokens=job.batches.useful_tokens,
        seconds=sum(job.seconds.values()),
        prefill_s=job.seconds["prefill"],
        decode_s=job.seconds["decode"],
        load_s=load_s,
        rounds=sum(len(wave.shapes) for wave in job.waves),
        acceptance=acceptance.hazards,
        acceptance_spread=acceptance.spread,
        accepted_per_round=acceptance.per_round,
        proposed=acceptance.proposed,
        preemptions=job.batches.preemptions,
        restored_positions=job.batches.restored_positions,
        peak_bytes=fullest(shares),
        process_bytes=process_bytes,
        peak_process_bytes=peak_bytes(),
        utilisation=utilisation(measured),
        bytes_moved=moved(shares),
        numerics=options.numerics,
        strategy=plan.decision.strategy,
        gamma=plan.decision.policy.gamma,
        predicted=Predicted.of(plan, in_ram(job.context.devices)),
        replayed_s=replayed_s,
        between_tasks=1.0 - sum(waiting_on(measured).values()),
        shrunk=tuple(job.shrunk),
        earlier=earlier,
    )
