"""Fault campaign: plants faults in the Verilog of the test core, one at a time, and lets the tests of the core look for them.

    python bench/fault_campaign.py [--mutants 300] [--seed 1] [--jobs 2] [--prove] [--results FILE] [--json FILE] [--markdown FILE]

All mutants are in one simulator, which the first run builds (`hw.sim.mutants`). Each is examined in a process of its own by the
stages of `tests/sim/fault_suite.py`, up to the first that fails. Results are appended to a file: a run that was stopped goes on
where it was, unless the Verilog, the mutants or the tests have changed. `--prove` tries to prove each survivor equal to the
original by yosys, module by module. Ends with 1 where fewer than `--least` percent were killed or proven equal, or one broke.
What the survivors of a whole run were is explained in docs/faults.md, whose tables `--markdown FILE` writes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the stages are tests, which are no package

from hw.rtl.emit import EmittedVerilog  # noqa: E402
from hw.sim.build import SimulationBuild, build_simulation  # noqa: E402
from hw.sim.campaign_netlist import Netlist  # noqa: E402
from hw.sim.campaign_proof import prove_equal  # noqa: E402
from hw.sim.core import core_name, emit_core, read_core  # noqa: E402
from hw.sim.mutants import Mutant, choose, family, instrument  # noqa: E402
from tests.sim.core_bench import ARCH  # noqa: E402
from tests.sim.fault_suite import Stage, examine, stages  # noqa: E402

LIMIT_S = 300
"""Wall time of one mutant. No verdict follows from it: what is stopped here is an error of the campaign."""

KILLED, SURVIVED, EQUAL, BROKEN = "killed", "survived", "equal", "broken"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a mutant: `status` is killed (by `stage`), survived, equal (proven) or broken (the process ended)."""

    number: int
    module: str
    kind: str
    change: str
    status: str
    stage: str = ""
    words: str = ""
    seconds: float = 0.0


def campaign_hash(text: str, mutants: Sequence[Mutant]) -> str:
    """Of everything that decides the results: Verilog, mutants, and the sources of tests and models."""
    digest = hashlib.sha256(text.encode())
    digest.update(repr(mutants).encode())
    for folder in ("hw/sim", "hw/spec", "tests/sim"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def examine_all(
    build: SimulationBuild, mutants: Sequence[Mutant], jobs: int, done: Sequence[int] = ()
) -> Iterator[Result]:
    """A process for each mutant that is not done, `jobs` at a time; results in the order in which they end."""
    context, suite = multiprocessing.get_context("fork"), stages()
    waiting = [mutant for mutant in reversed(mutants) if mutant.number not in set(done)]
    running: dict[Any, tuple[Mutant, Any, float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_examine, args=(sender, build, mutant, suite), daemon=True)
            process.start()
            sender.close()
            running[receiver] = (mutant, process, time.monotonic())
        for receiver in wait(list(running), timeout=1.0):
            mutant, process, _ = running.pop(receiver)
            yield _result(mutant, receiver, process)
        for _, process, start in running.values():
            if time.monotonic() - start > LIMIT_S:
                process.kill()  # its pipe closes, and the next turn takes it as broken


def _examine(sender: Any, build: SimulationBuild, mutant: Mutant, suite: Sequence[Stage]) -> None:
    sender.send(examine(build, mutant.number, suite))


def _result(mutant: Mutant, receiver: Any, process: Any) -> Result:
    known = {"number": mutant.number, "module": mutant.site.module, "kind": mutant.kind, "change": mutant.words}
    try:
        verdict = receiver.recv()
    except EOFError:
        process.join()
        return Result(**known, status=BROKEN, words=f"the process ended with {process.exitcode}")
    process.join()
    return Result(**known, status=SURVIVED if verdict.stage is None else KILLED, stage=verdict.stage or "",
                  words=verdict.words, seconds=round(verdict.seconds, 2))  # fmt: skip


class ResultFile:
    """One JSON object per line: the hash of the campaign, then a result each. Another campaign's file is begun anew."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.results = path, {}
        lines = path.read_text().splitlines() if path.exists() else []
        if lines and json.loads(lines[0]).get("campaign") == key:
            self.results = {(r := Result(**json.loads(line))).number: r for line in lines[1:]}
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"campaign": key}) + "\n")

    def add(self, result: Result) -> None:
        self.results[result.number] = result
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")


def tables(results: Sequence[Result], suite: Sequence[Stage]) -> list[Table]:
    """Results by class, by family of modules, by the stage that found them; then all that were not killed."""
    found = [_counts("class", results, lambda r: r.kind), _counts("modules", results, lambda r: family(r.module))]
    by_stage = Table("stage", "faults found first", title="What found them")
    counts = Counter(result.stage for result in results if result.status == KILLED)
    for stage in suite:
        if counts[stage.name]:
            by_stage.add_row(stage.name, str(counts[stage.name]))
    left = Table("number", "status", "module", "class", "change", title="Not killed")
    for result in results:
        if result.status != KILLED:
            left.add_row(str(result.number), result.status, result.module, result.kind, result.change)
    return [*found, by_stage, left]


def _counts(title: str, results: Sequence[Result], key: Any) -> Table:
    table = Table(title, "mutants", KILLED, EQUAL, SURVIVED, BROKEN)
    groups: dict[str, Counter[str]] = {}
    for result in results:
        groups.setdefault(key(result), Counter())[result.status] += 1
    for name in sorted(groups):
        counts = groups[name]
        table.add_row(name, str(counts.total()), *(str(counts[s] or "") for s in (KILLED, EQUAL, SURVIVED, BROKEN)))
    total = Counter(result.status for result in results)
    table.add_section()
    table.add_row("all", str(total.total()), *(str(total[s]) for s in (KILLED, EQUAL, SURVIVED, BROKEN)))
    return table


def markdown(listed: Sequence[Table]) -> str:
    """The tables as text for docs/faults.md."""
    parts = []
    for table in listed:
        columns = [[str(cell) for cell in column.cells] for column in table.columns]
        rows = [[str(column.header) for column in table.columns], ["---"] * len(columns), *zip(*columns, strict=True)]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        parts.append("\n".join([*([f"### {table.title}", ""] if table.title else []), *lines]))
    return "\n\n".join(parts) + "\n"


def prove_survivors(netlist: Netlist, mutants: Sequence[Mutant], file: ResultFile, progress: Progress) -> None:
    """Survivors that yosys proves equal to the original become `equal`."""
    left = [result for result in file.results.values() if result.status == SURVIVED]
    task = progress.add_task("proofs", total=len(left))
    for result in left:
        if prove_equal(netlist, mutants[result.number - 1]):
            file.add(Result(**{**asdict(result), "status": EQUAL}))
        progress.advance(task)


def run(args: argparse.Namespace, console: Console) -> list[Result]:
    emitted: EmittedVerilog = emit_core(ARCH, merge=False) if args.verilog is None else read_core(ARCH, args.verilog)
    netlist = Netlist(emitted)
    mutants = choose(netlist, args.mutants, args.seed)
    hit = len({mutant.site.module for mutant in mutants})
    console.print(f"{len(mutants)} mutants in {hit} of {len(netlist.modules)} modules of {core_name(ARCH)}")
    build = build_simulation(instrument(netlist, mutants), random_state=True, progress=console.print)
    suite = stages()
    verdict = examine(build, 0, suite)
    if verdict.stage is not None:
        raise SystemExit(f"without a fault the stage {verdict.stage!r} must be green, and is not: {verdict.words}")
    console.print(f"without a fault all {len(suite)} stages are green ({verdict.seconds:.0f} s)")
    file = ResultFile(args.results, campaign_hash(emitted.text, mutants))
    with Progress(console=console) as progress:
        task = progress.add_task("mutants", total=len(mutants), completed=len(file.results))
        for result in examine_all(build, mutants, args.jobs, list(file.results)):
            file.add(result)
            progress.advance(task)
            if result.status != KILLED:
                words = f"{result.number} {result.status}: {result.module}: {result.kind}: {result.change}"
                progress.console.print(words, markup=False)
        if args.prove:
            prove_survivors(netlist, mutants, file, progress)
    return [file.results[number] for number in sorted(file.results)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "faults.jsonl", help="goes on where this file ends")
    parser.add_argument("--verilog", type=Path, help="a Verilog file in place of the generated one")
    parser.add_argument("--prove", action="store_true", help="try to prove survivors equal (formal extra)")
    parser.add_argument("--least", type=float, default=95.0, help="percent that must be killed or proven equal")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    console = Console()
    results = run(args, console)
    listed = tables(results, stages())
    for table in listed:
        console.print(table)
    if args.markdown is not None:
        args.markdown.write_text(markdown(listed), encoding="utf-8")
    counts = Counter(result.status for result in results)
    if args.json is not None:
        report = {"mutants": len(results), **counts, "results": [asdict(result) for result in results]}
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(100 * (counts[KILLED] + counts[EQUAL]) < args.least * len(results) or counts[BROKEN] > 0)


if __name__ == "__main__":
    sys.exit(main())
