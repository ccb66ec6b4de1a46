"""What every part uses: where things are, the table of figures, patience. Standard library only."""
import os, pathlib, statistics, subprocess, time

TOP = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("MOTE_CACHE", TOP / ".cache"))
IMAGE = "local.test/busybox:1"
ROUNDS = 7
rows = []

def row(what, budget, value, good=None, beside=""):
    verdict = "" if good is None else ("ok" if good else "OVER")
    rows.append((what, budget, value, verdict, beside))
    print(f"  {what:<58} {value:>22}   budget {budget:<16} {verdict:<5} {beside}", flush=True)


def median(values):
    return statistics.median(values)


def wait(what, seconds, ask, pause=0.002):
    end = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > end:
            raise SystemExit(f"gave up after {seconds} s waiting for {what}")
        time.sleep(pause)


def debian_arch():
    return subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()


def bench_tool(name):
    """A program of tests/bench, built for speed of measuring rather than small; MOTE_BENCH_TOOLS is a folder where all of them are already."""
    if ready := os.environ.get("MOTE_BENCH_TOOLS"):
        return f"{ready}/{name}"
    subprocess.run(["cargo", "build", "--locked", "--profile", "fast", "-p", "mote-bench", "--bin", name], cwd=TOP, check=True)
    return str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "fast" / name)
