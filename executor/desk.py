"""Who looks after a run while it goes: keeps the journal, writes outputs as requests finish, and the progress line."""

from __future__ import annotations

from typing import Final

from executor.job import Job
from executor.journal import Journal
from executor.outputs import Output, OutputWriter
from executor.progress import Progress, ProgressLine
from executor.requests import Generation
from executor.signals import undisturbed

#: outputs that are kept to be shown at the end
SAMPLES: Final = 3


class Desk:
    """Of `requests` that are to be served; `writer` may have written others before."""

    def __init__(self, journal: Journal, writer: OutputWriter, line: ProgressLine, requests: int) -> None:
        self.journal, self.writer, self.line, self.requests = journal, writer, line, requests
        self.before = writer.written
        self.samples: list[Output] = []

    def tick(self, job: Job) -> None:
        """Called a few times a second by the thread that owns the run.

        What has ended is looked for first, so that its last tokens are in the journal before its output is written; but
        it is written even where the journal cannot be.
        """
        with undisturbed():  # what is no longer in the queue is in the file
            ended: list[Generation] = []
            while not job.batches.finished.empty():
                ended.append(job.batches.finished.get())
            try:
                self.journal.write()
            finally:
                for generation in ended:
                    output = Output.of(generation)
                    self.writer.write(output)
                    if len(self.samples) < SAMPLES:
                        self.samples.append(output)
        self.line.update(self._progress(job))

    def _progress(self, job: Job) -> Progress:
        batches = job.batches
        return Progress(
            phase=job.phase,
            requests=self.requests,
            prefilled=batches.served,
            finished=self.writer.written - self.before,
            tokens=batches.useful_tokens,
            wanted=batches.wanted,
            prefill_s=job.seconds["prefill"],
            decode_s=job.seconds["decode"],
            bytes_moved=sum(job.engine.moved.values()),
            acceptance=batches.acceptance.rate,
        )
