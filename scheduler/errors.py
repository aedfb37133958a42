"""What can go wrong in the scheduler, and the two families of failure every job reports in."""


class SchedulerError(Exception):
    """Anything the scheduler raises."""


class Transient(SchedulerError):
    """The job failed and may succeed later: a peer is away, a disk is full, a time limit passed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Permanent(SchedulerError):
    """The job failed and will fail again however often it is tried: the input or the settings must change first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ExecutorAway(Transient):
    """The executor did not take the task, or lost it: no fault of the job, which is tried again without end."""


class Broke(Transient):
    """The task took its process down or overran its time limit: passing trouble of the machine, or its own doing."""


class Unfinished(Transient):
    """The job got on, but not to its end: ``result`` is committed, and the rest is tried again."""

    def __init__(self, reason: str, result: object = None) -> None:
        super().__init__(reason)
        self.result = result


class LeaseLost(SchedulerError):
    """This attempt no longer owns its job; nothing was changed, and its result must be thrown away."""

    def __init__(self, key: str, attempt: int) -> None:
        super().__init__(key, attempt)
        self.key = key
        self.attempt = attempt

    def __str__(self) -> str:
        return f"attempt {self.attempt} of job {self.key} has lost its lease: its result is thrown away"


class NotAllowed(SchedulerError):
    """The job's status has no such transition; nothing was changed."""

    def __init__(self, status: str, event: str) -> None:
        super().__init__(status, event)
        self.status = status
        self.event = event

    def __str__(self) -> str:
        return f"a job that is {self.status} cannot {self.event}: look at its status first"


class UnknownJob(SchedulerError):
    """No job has this key."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"no job has the key {self.key}: list the jobs to see the keys"
