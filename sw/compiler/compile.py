"""Compile an integer graph: check everything, plan memory, emit each step, prove the result's memory accesses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hw.spec.deform import DeformArch
from hw.spec.program import Intermediate, Program, Region, TensorLayout, WindowLayout, build_image
from sw.compiler.check import check_arch, check_k_steps, check_names, check_node, check_offsets, check_step, check_tensors
from sw.compiler.chipcheck import prove_feature_memory
from sw.compiler.emit import INPUT, OUTPUT, PARAMETERS, SCRATCH, Emitter
from sw.compiler.fuse import fuse
from sw.compiler.lower_copy import check_copy, lower_copy
from sw.compiler.lower_dw import DwLayer, dw_layer, lower_dw
from sw.compiler.lower_pw import PwLayer, lower_pw, pw_layer
from sw.compiler.lower_sample import SampleLayer, lower_sample, sample_layer
from sw.compiler.memcheck import prove_memory
from sw.compiler.plan import MemoryPlan, plan_memory
from sw.compiler.problems import CompileError, Problem
from sw.compiler.simplify import simplified
from sw.compiler.slots import View, assign_layout
from sw.compiler.steps import CopyStep, PwStep, Step, build_steps, copied_outputs, copy_name
from sw.compiler.tiling import Tiling, choose, too_big
from sw.compiler.windows import choose_windows, with_windows
from sw.graph import IntegerGraph

WORD = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tiled:
    """A step with its sizes and tiling; a copy needs neither."""

    step: Step
    layer: PwLayer | DwLayer | None = None
    tiling: Tiling | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Analysis:
    """Everything known of a graph before the first instruction."""

    problems: tuple[Problem, ...]
    plan: MemoryPlan
    tiled: tuple[_Tiled, ...]
    outputs: dict[str, str]
    """Each graph output's tensor in the plan."""


def check_graph(graph: IntegerGraph, arch: DeformArch) -> list[Problem]:
    """All obstacles to compiling a graph for an architecture, of all its nodes; an empty list means that it compiles."""
    return list(_analyse(simplified(graph), arch).problems)


def compile_graph(graph: IntegerGraph, arch: DeformArch, *, windows: bool = False) -> Program:
    """The program that computes a graph on an architecture; raises CompileError with all obstacles if there are any.

    With ``windows`` the host writes images window by window where that is faster (:mod:`sw.compiler.windows`); without, pixel by
    pixel. Region 0 holds parameters, 1 the inputs, 2 the outputs, 3 scratch. Equal graphs give equal bytes. Intermediates are
    tensors of the given graph; of those that only its simplified form has the program tells nothing.
    """
    layouts = choose_windows(graph, arch) if windows else {}
    simple = simplified(with_windows(graph, layouts))
    analysis = _analyse(simple, arch)
    if analysis.problems:
        raise CompileError(analysis.problems)
    emitter = Emitter(arch)
    whole: dict[str, int] = {}
    for tiled in analysis.tiled:
        _lower(tiled, analysis.plan, emitter)
        whole[analysis.plan.views[tiled.step.target].base] = len(emitter.layers) - 1
    known = tuple(entry for entry in _intermediates(whole, analysis.plan) if entry.layout.name in graph.tensors)
    program = _assemble(graph, layouts, analysis, emitter, known)
    prove_memory(program, graph)
    prove_feature_memory(program)
    return program


def _intermediates(whole: dict[str, int], plan: MemoryPlan) -> tuple[Intermediate, ...]:
    """The tensors that own scratch memory, by the last instruction that writes any of them."""
    found = (Intermediate(after=index, layout=_layout(name, name, plan)) for name, index in whole.items())
    return tuple(sorted((entry for entry in found if entry.layout.region == SCRATCH), key=lambda entry: entry.after))


def _analyse(graph: IntegerGraph, arch: DeformArch) -> _Analysis:
    problems = check_arch(arch) + check_names(graph) + check_tensors(graph)
    faulty: set[str] = set()
    for node in graph.nodes:
        found = check_node(node, graph, arch)
        faulty |= {node.name} if found else set()
        problems += found
    units = fuse(graph, faulty)
    layout = assign_layout(graph, units, faulty)
    problems += check_offsets(graph, layout.views, faulty)
    steps = build_steps(graph, units, layout)
    plan, outputs = _plan(graph, dict(layout.views), steps)
    tiled = []
    for step in steps:
        problems += check_step(step, graph, arch)
        entry, found = _tile(step, plan, arch)
        tiled.append(entry)
        problems += found
    return _Analysis(problems=tuple(problems), plan=plan, tiled=tuple(tiled), outputs=outputs)


def _plan(graph: IntegerGraph, views: dict[str, View], steps: list[Step]) -> tuple[MemoryPlan, dict[str, str]]:
    """The memory plan with the copies of outputs as tensors of their own."""
    copies = copied_outputs(graph, views)
    outputs = {name: copy_name(name) if name in copies else name for name in graph.outputs}
    tensors = {**graph.tensors, **{copy_name(name): graph.tensors[name] for name in copies}}
    extra = {copy_name(n): View(base=copy_name(n), word=0, slots=views[n].slots) for n in copies}
    plan = plan_memory(graph.inputs, list(outputs.values()), {**views, **extra}, tensors, steps)
    return plan, outputs


def _tile(step: Step, plan: MemoryPlan, arch: DeformArch) -> tuple[_Tiled, list[Problem]]:
    if isinstance(step, CopyStep):
        return _Tiled(step=step), check_copy(step, plan, arch)
    layer: PwLayer | DwLayer
    problems: list[Problem] = []
    if isinstance(step, PwStep):
        if step.sampling:
            layer = sample_layer(step, arch, plan)
        else:
            layer = pw_layer(step, arch, plan)
        problems = check_k_steps(step.name, layer.most_k_steps)
    else:
        layer = dw_layer(step, plan)
    tiling = choose(layer, arch)
    problems += [] if tiling else [too_big(step.name, layer, arch)]
    return _Tiled(step=step, layer=layer, tiling=tiling), problems


def _lower(tiled: _Tiled, plan: MemoryPlan, emitter: Emitter) -> None:
    step, layer, tiling = tiled.step, tiled.layer, tiled.tiling
    if isinstance(step, CopyStep):
        return lower_copy(step, plan, emitter)
    assert tiling is not None
    if isinstance(step, PwStep):
        assert isinstance(layer, PwLayer)
        if isinstance(layer, SampleLayer):
            return lower_sample(step, layer, tiling, plan, emitter)
        return lower_pw(step, layer, tiling, plan, emitter)
    assert isinstance(layer, DwLayer)
    return lower_dw(step, layer, tiling, plan, emitter)


def _assemble(
    graph: IntegerGraph,
    windows: Mapping[str, WindowLayout],
    analysis: _Analysis,
    emitter: Emitter,
    intermediates: tuple[Intermediate, ...],
) -> Program:
    plan, data = analysis.plan, bytes(emitter.parameters)
    sizes = {PARAMETERS: len(data), **{region: WORD * words for region, words in plan.sizes.items()}}
    kinds = {PARAMETERS: "parameters", INPUT: "input", OUTPUT: "output", SCRATCH: "scratch"}
    regions = tuple(
        Region(name=kind, kind=kind, size=sizes[i], data=data if i == PARAMETERS else b"") for i, kind in kinds.items()
    )
    return Program(
        arch=emitter.arch,
        image=build_image(emitter.arch, emitter.instructions()),
        regions=regions,
        inputs=tuple(_input(name, graph, plan, windows.get(name)) for name in graph.inputs),
        outputs=tuple(_layout(name, analysis.outputs[name], plan) for name in graph.outputs),
        layers=tuple(emitter.layers),
        intermediates=intermediates,
    )


def _input(name: str, graph: IntegerGraph, plan: MemoryPlan, window: WindowLayout | None) -> TensorLayout:
    """The layout of an input, whose shape is the image's."""
    operand = plan.operand(name)
    return TensorLayout(
        name=name, region=operand.region, offset=WORD * operand.offset, shape=graph.tensors[name].shape, fmt=operand.spec.fmt,
        slots=operand.slots, window=window,
    )  # fmt: skip


def _layout(name: str, tensor: str, plan: MemoryPlan) -> TensorLayout:
    operand = plan.operand(tensor)
    return TensorLayout(
        name=name, region=operand.region, offset=WORD * operand.offset, shape=operand.spec.shape, fmt=operand.spec.fmt,
        slots=operand.slots,
    )
