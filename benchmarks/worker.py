"""One contender in its own process: makes its step, then runs it on request.

`python -m benchmarks.worker CONTENDER MODEL TASK BATCH DTYPE` reads standard input: each line is a number of steps to
time, and each answer is a line of JSON. Processes take turns, so no two contenders compete for the cores.
"""

import json
import resource
import sys
import time

from benchmarks import contenders


def _answer(message: dict) -> None:
    print(json.dumps(message), file=_answers, flush=True)


if __name__ == "__main__":
    _answers, sys.stdout = sys.stdout, sys.stderr
    contender, model, task, batch, dtype = sys.argv[1:]
    try:
        step, costs = contenders.make(contender, model, task, int(batch), dtype)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        step()
        costs["first_call_s"] = time.perf_counter() - started
        step()
    except Exception as error:
        _answer({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _answer({**costs, "peak_mb": peak / 1024, "step_mb": (peak - before) / 1024})
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
        _answer({"times_s": times})
