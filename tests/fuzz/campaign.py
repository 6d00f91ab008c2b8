"""Many mutated model folders and input files, in child processes with a limit on memory and time.

    python tests/fuzz/campaign.py --cases 20000
    python tests/fuzz/campaign.py --only 4711        # one case again, with what it did

A case may load, or be refused with a SentcoreError. Anything else is a fault: another exception, a crash, more than 10 seconds,
more memory than the file explains, code of the folder that ran, a file outside the folder that was read. Exit status 1 then.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

BATCH = 1000  # cases of one child
ROOM = 2**30  # address space beyond what a child has when it begins
RESIDENT = 400 * 2**20  # memory beyond what a child has when it begins
WALL, START = 120.0, 600.0  # seconds to an outcome, and to the first of a child; a case's own limit is in CPU seconds


def child(seeds: Path, work: Path, first: int, last: int, pipe) -> None:
    """Runs cases first..last-1, sending (number, kind, detail, said)."""
    from fuzz.cases import run_case

    # What a panic of the tokenizers library writes is said by the outcome; a child that dies has nobody else to say it.
    os.dup2(os.open(_stderr_of(work), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), 2)
    have = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (have + ROOM, have + ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send(None)
    for number in range(first, last):
        kind, detail, said = run_case(seeds, work / "case", number)
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if (now - peak) * 1024 > RESIDENT and kind != "fault":
            kind, detail = "fault", f"{(now - peak) // 1024} MiB of memory"
        peak = max(peak, now)
        pipe.send((number, kind, detail, said))


def _stderr_of(work: Path) -> Path:
    return work.with_name(f"{work.name}.stderr")


def _last_words(work: Path) -> str:
    path = _stderr_of(work)
    return " / ".join(path.read_text(errors="replace").splitlines()[-6:]) if path.exists() else ""


def _comes(pipe, seconds: float) -> bool:
    """Whether something comes within that time, a second at a time: a machine that is suspended has not waited."""
    return any(pipe.poll(1.0) for _ in range(int(seconds)))


def batch(context, seeds: Path, work: Path, first: int, last: int):
    """Outcomes of cases first..last-1; a child that dies or hangs is a fault, and another goes on behind it."""
    while first < last:
        shutil.rmtree(work, ignore_errors=True)
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(seeds, work, first, last, theirs))
        process.start()
        theirs.close()
        try:
            if not _comes(ours, START):
                raise TimeoutError(f"a child did not begin within {START:.0f} s")
            ours.recv()
            while first < last:
                if not _comes(ours, WALL):
                    yield first, "fault", f"no outcome in {WALL:.0f} s", ""
                    first += 1
                    break
                outcome = ours.recv()
                yield outcome
                first = outcome[0] + 1
        except EOFError:
            process.join()
            yield first, "fault", f"the process died with {process.exitcode}: {_last_words(work)}", ""
            first += 1
        finally:
            process.kill()
            process.join()


def main(argv: list[str] | None = None) -> int:
    """The campaign; 1 where there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="how many (default: 20000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first, which decides what is mutated how")
    parser.add_argument("--only", type=int, metavar="N", help="run case N in this process and tell of it")
    parser.add_argument("--out", type=Path, help="a JSON-lines file for the outcomes")
    args = parser.parse_args(argv)

    from tqdm import tqdm

    from fuzz.seeds import make_all

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_all(root / "seeds")
        if args.only is not None:
            from fuzz.cases import run_case

            print(*run_case(root / "seeds", root / "work" / "case", args.only), sep="\n")
            return 0
        import warnings

        from fuzz.cases import use_model

        warnings.simplefilter("ignore")
        use_model(root / "seeds" / "models" / "sentence-bert", False)  # all that children need is imported now
        counts, faults, begin = Counter(), [], time.monotonic()
        context = multiprocessing.get_context("fork")
        numbers = range(args.first, args.first + args.cases, BATCH)
        with (
            open(args.out or os.devnull, "w", encoding="utf-8") as out,
            tqdm(total=args.cases, unit="case", mininterval=5) as bar,
        ):
            for first in numbers:
                last = min(first + BATCH, args.first + args.cases)
                for number, kind, detail, said in batch(context, root / "seeds", root / "work", first, last):
                    counts[kind if kind != "refused" else f"refused: {detail}"] += 1
                    if kind == "fault":
                        faults.append((number, detail, said))
                        bar.write(f"fault {number}: {detail} | {said}"[:600])
                    out.write(json.dumps([number, kind, detail, said]) + "\n")
                    bar.update()
    print(json.dumps({"cases": sum(counts.values()), "seconds": round(time.monotonic() - begin), **counts}, indent=2))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
