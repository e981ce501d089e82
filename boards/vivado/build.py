"""From a board and an architecture to a bitstream by way of Vivado: run here where it is, else prepared and brought back.

What does not fit the part, or would take something from the user's folder, is refused before anything is written. The core's Verilog
comes next, because it is what a design record proves, and ``admit`` decides on it. A bitstream is kept under the plan's digest: the
same plan gives the same bitstream.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from boards.ecp5 import Progress, ToolError
from boards.folder import CORE_FILE, README_FILE, check_free, clear, copied_record
from boards.vivado.board import load_vivado_arch, load_vivado_board
from boards.vivado.carry import ImportRefusal, prepare, read_folder
from boards.vivado.deliver import LOGS, Admission, Built, Prepared, deliver, hashes, save_logs, written
from boards.vivado.plan import Plan, Say, check_suits, core_text, make_plan
from boards.vivado.results import Results, read_results, session_seconds
from boards.vivado.run import find_vivado, run_vivado
from hw.sim.cache import cache_root, cached_folder, drop_oldest
from hw.spec.arch import Arch
from hw.spec.program import write_atomically

RESULT_FILE = "result.json"
KEPT = 20

Admit = Callable[[Path, Arch], Admission]
"""Given the core's Verilog file: an admission, or an error that says what to do."""

Foresee = Callable[[Path, Arch], None]
"""Given where the core's Verilog will lie: an error where it is already known that it would not be admitted."""


def build(
    name: str,
    out: Path,
    *,
    admit: Admit,
    foresee: Foresee = lambda verilog, arch: None,
    arch: Arch | None = None,
    vivado: Path | None = None,
    progress: Progress = lambda step, done, total, note: None,
    say: Say = lambda words: None,
) -> Built | Prepared:
    """Build a board's bitstream into the folder ``out``, with its texts, reports and manifest.json; without Vivado, prepare it there.

    What an earlier build left in ``out`` is removed first: the bitstream and manifest that lie there are those of the last build, and
    none does after one that failed. A folder with somebody else's files of the same names is refused as it is.

    Parameters
    ----------
    admit : the proof gate; it is asked once, with the core's Verilog in place
    foresee : asked before anything is written, because a large core's Verilog takes minutes
    arch : None takes that of the board's folder
    vivado : its program; None looks on the PATH

    Raises BoardError, ToolError, TimingMissed where a slack is negative, and whatever ``foresee`` and ``admit`` raise.
    """
    board, arch = load_vivado_board(name), arch or load_vivado_arch(name)
    program = find_vivado(vivado)
    texts = check_suits(board, arch) | ({README_FILE} if program is None else set())
    check_free(out, written(texts, board), LOGS)
    foresee(out / CORE_FILE, arch)
    old_copy = copied_record(out)
    clear(out, LOGS)
    core = core_text(arch, say)
    write_atomically(out / CORE_FILE, core.encode())
    admission = admit(out / CORE_FILE, arch)
    plan = make_plan(board, arch, core, build_id=admission.build_id)
    kept = cache_root() / "vivado" / plan.digest[:32]
    if program is None and not kept.is_dir():
        return prepare(plan, out, admission, old_copy=old_copy)
    made = cached_folder(kept, lambda target: _make(plan, program, target, out, progress, say))
    if made:
        drop_oldest(kept.parent, KEPT)
    results, seconds = _read_kept(kept, plan)
    return deliver(plan, results, out, admission, seconds=seconds, cached=not made)


def import_build(folder: Path, out: Path, *, admit: Admit) -> Built:
    """Take back a prepared folder that Vivado was run in: check all of it, then deliver to ``out`` as a build here does.

    ``out`` is left as it was where anything is refused: ImportRefusal, BoardError where ``out`` holds somebody else's files, or is
    itself a folder that was run and not brought back, and whatever ``admit`` raises, which is asked with the folder's ``core.v``.
    """
    plan, in_place = read_folder(folder), out.resolve() == folder.resolve()
    if not in_place:
        check_free(out, written(plan.files, plan.board), LOGS)
    admission = admit(folder / CORE_FILE, plan.arch)
    if admission.build_id != plan.build_id:
        raise ImportRefusal(
            f"{folder} was prepared for build_id {plan.build_id:016x}, and the design record here gives {admission.build_id:016x}: "
            f"name the record that it was prepared with, or prepare it again"
        )
    try:
        results = read_results(folder, plan)
    except ToolError as error:
        raise ImportRefusal(f"{folder} cannot be brought back: {error}") from error
    if not in_place:
        clear(out, LOGS)
    return deliver(plan, results, out, admission, seconds=session_seconds(results), imported=True)


def _make(plan: Plan, program: Path | None, target: Path, out: Path, progress: Progress, say: Say) -> None:
    """Fill the folder with what Vivado makes; where it fails or is stopped, the logs are left in ``out``."""
    if program is None:
        raise ToolError(f"the kept bitstream of this plan was removed just now: build again with Vivado, into {out}")
    for name, text in plan.files.items():
        (target / name).write_text(text)
    try:
        seconds = run_vivado(program, target, progress)
        results = read_results(target, plan)
    except ToolError as error:
        save_logs(target, out, plan, str(error))
        raise type(error)(f"{error}\nNo bitstream is delivered; Vivado's logs and reports lie in {out}") from error
    except BaseException:
        save_logs(target, out, plan, "stopped")
        say(f"stopped: Vivado was ended, no bitstream is delivered; its logs lie in {out}")
        raise
    _keep_only(target, {*plan.files, *plan.made})
    (target / RESULT_FILE).write_text(json.dumps({"sha256": hashes(results.contents), "seconds": seconds}))


def _keep_only(folder: Path, names: set[str]) -> None:
    """Vivado's project takes gigabytes."""
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _read_kept(kept: Path, plan: Plan) -> tuple[Results, dict[str, float]]:
    """What the cache holds and the seconds that it took. ToolError where it is not what was put there."""
    try:
        told = json.loads((kept / RESULT_FILE).read_text())
        results, wanted, seconds = read_results(kept, plan), dict(told["sha256"]), dict(told["seconds"])
    except (OSError, ValueError, KeyError, TypeError, ToolError) as error:
        raise ToolError(f"the kept bitstream in {kept} is damaged ({error}): remove that folder and build again") from error
    found = hashes(results.contents)
    if changed := sorted(name for name in found if found[name] != wanted.get(name)):
        raise ToolError(
            f"the kept {', '.join(changed)} in {kept} changed after it was made: remove that folder and build again"
        )
    return results, seconds
