"""Who looks after a run while it goes: writes outputs as requests finish, and keeps the progress line."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Final

from executor.job import Job
from executor.outputs import Output, OutputWriter
from executor.progress import Progress, ProgressLine
from executor.requests import Generation
from executor.signals import undisturbed

#: outputs that are kept to be shown at the end
SAMPLES: Final = 3


class Desk:
    def __init__(self, writer: OutputWriter, line: ProgressLine, requests: int) -> None:
        self.writer, self.line, self.requests = writer, line, requests
        self.samples: list[Output] = []

    def tick(self, job: Job) -> None:
        """Called a few times a second by the thread that owns the run."""
        if not job.batches.finished.empty():
            with undisturbed():  # what is no longer in the queue is in the file
                self._write(job.batches.finished)
        self.line.update(self._progress(job))

    def _write(self, finished: SimpleQueue[Generation]) -> None:
        while not finished.empty():
            generation = finished.get()
            reason = generation.finish_reason
            assert reason is not None, "only finished requests are handed over"
            output = Output(generation.request.id, tuple(generation.output_ids), generation.text, reason)
            self.writer.write(output)
            if len(self.samples) < SAMPLES:
                self.samples.append(output)

    def _progress(self, job: Job) -> Progress:
        batches = job.batches
        return Progress(
            phase=job.phase,
            requests=self.requests,
            prefilled=batches.served,
            finished=self.writer.written,
            tokens=batches.useful_tokens,
            wanted=sum(s.generation.remaining for s in (*batches.in_flight, *batches.paused))
            + sum(r.max_new_tokens - len(r.committed) for r in batches.waiting),
            prefill_s=job.seconds["prefill"],
            decode_s=job.seconds["decode"],
            bytes_moved=sum(job.engine.moved.values()),
            acceptance=batches.acceptance.rate,
        )
