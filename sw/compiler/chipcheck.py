"""Independent proof of a program's use of feature memory and of tables, from its instructions alone.

No PW or DW may write a word that it also reads, or write one twice (the core overlaps reading and writing within an instruction);
and every word that is read must have been written earlier in the program, so that nothing depends on what an earlier program left.
"""

from __future__ import annotations

import numpy as np

from hw.spec.deform.addresses import ADDR_MASK, feature_reads, feature_writes
from hw.spec.deform.instructions import SPACES, TABLE_BYTES, TABLES_MAX
from hw.spec.isa import Instruction
from hw.spec.program import WORD_BYTES, Program
from sw.compiler.memcheck import MemoryFault

TABLE_WORDS = TABLE_BYTES // WORD_BYTES


def prove_feature_memory(program: Program) -> int:
    """Number of word accesses proven; raises MemoryFault at the first instruction that breaks the rule."""
    written, tables = np.zeros(ADDR_MASK + 1, bool), np.zeros(TABLES_MAX * TABLE_WORDS, bool)
    proven = 0
    for index, instruction in enumerate(program.instructions()):
        reads, writes = _accesses(instruction)
        who = f"instruction {index} ({instruction.name} of {program.layers[index]})"
        if not written[reads].all():
            word = int(reads[~written[reads]][0])
            raise MemoryFault(f"{who} reads feature word {word}, which nothing has written")
        if np.intersect1d(reads, writes).size or np.unique(writes).size != writes.size:
            raise MemoryFault(f"{who} writes a feature word that it also reads, or writes one twice")
        written[writes] = True
        proven += reads.size + writes.size + _table_accesses(who, instruction, tables)
    return proven


def _table_accesses(who: str, i: Instruction, tables: np.ndarray) -> int:
    """Number of table words that an instruction loads or uses; ``tables`` tells which were loaded."""
    if i.name == "LOAD" and SPACES[i["space"]] == "tbl":
        words = _run_words(i)
        tables[words] = True
        return int(words.size)
    number = i["table"] if i.name in ("PW", "DW") else 0
    if number and not tables[TABLE_WORDS * (number - 1) : TABLE_WORDS * number].all():
        raise MemoryFault(f"{who} uses table {number - 1}, which nothing has loaded whole")
    return TABLE_WORDS if number else 0


def _accesses(i: Instruction) -> tuple[np.ndarray, np.ndarray]:
    """Feature words that an instruction reads and writes."""
    none = np.zeros(0, np.int64)
    if i.name == "LOAD":
        return none, _run_words(i) if SPACES[i["space"]] == "fm" else none
    if i.name == "STORE":
        return _run_words(i), none
    return feature_reads(i), feature_writes(i)


def _run_words(i: Instruction) -> np.ndarray:
    plane, run, word = (np.arange(i[n]) for n in ("n2", "n1", "n0"))
    starts = plane[:, None, None] * i["chip_stride2"] + run[:, None] * i["chip_stride1"]
    return ((i["chip_addr"] + starts + word) & ADDR_MASK).reshape(-1)
