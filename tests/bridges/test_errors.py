"""How a refusal tells what is in the way: everything with its place, and what is alike once."""

from __future__ import annotations

from sw.bridges.errors import refusal
from sw.tracing.problems import Problem


def problem(place: str, reason: str = "has no room at all", advice: str = "make some", kind: str = "conv2d") -> Problem:
    return Problem(place=place, kind=kind, reason=reason, advice=advice)


def test_one_of_a_kind_is_told_as_it_is() -> None:
    problems = [problem("a"), problem("b", kind="add"), problem("c", advice="leave it"), problem("d", "is of another sort")]
    assert str(refusal("no", problems)) == "no, 4 thing(s) are in the way:\n" + "\n".join(f"  {each}" for each in problems)


def test_equal_reasons_are_told_once_with_all_places() -> None:
    problems = [problem(f"layer {k}") for k in range(300)]
    error = refusal("no", [*problems[:150], problem("", kind="add"), *problems[150:]])
    _, first, places, other = str(error).splitlines()
    assert first == "  300 times conv2d has no room at all; make some:"
    assert places == f"    {', '.join(each.place for each in problems)}"
    assert other == "  (model): add has no room at all; make some" and len(error.problems) == 301


def test_reasons_that_differ_in_numbers_and_names_keep_them() -> None:
    problems = [problem(place, f"moves codes from {place}_in (of {fmt}), and hls4ml keeps values and not codes")
                for place, fmt in (("a", "s8f3"), ("b", "s8f3"), ("c", "s8f4"))]  # fmt: skip
    _, first, places = str(refusal("no", problems)).splitlines()
    assert first.startswith("  3 times conv2d moves codes from a_in (of s8f3), and") and places == "    a, b (b_in), c (c_in, s8f4)"


def test_many_of_all_sorts_are_bounded() -> None:
    problems = [problem(f"p{k}", f"says {k * 7} of {k * 3} or {k + 1} and {k - 1}") for k in range(2_000)]
    lines = str(refusal("no", problems)).splitlines()
    assert len(lines) == 202 and lines[-1] == "  and 1800 more"
