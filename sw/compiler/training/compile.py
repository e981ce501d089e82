"""Compile a training graph: check everything, decide who lives where and how long, emit the five programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hw.spec.arch import WORD_BYTES
from hw.spec.program import Region, build_image
from hw.spec.sat import SatArch
from hw.spec.training_program import PROGRAMS, Place, TrainingProgram
from sw.compiler.problems import CompileError
from sw.compiler.training import update
from sw.compiler.training.check import check_training
from sw.compiler.training.emit import INPUT, OUTPUT, PARAMETERS, STATE, Emitter, Parameters
from sw.compiler.training.gradient import WeightGradient
from sw.compiler.training.memory import Copy, Layout, Scratch, Tensor
from sw.compiler.training.pooling import Pooling
from sw.compiler.training.products import Product
from sw.compiler.training.tables import forward_windows, gradient_windows
from sw.compiler.training.vectors import VectorWork
from sw.training_graph import INPUT as IMAGES
from sw.training_graph import ChannelNode, ConvNode, Node, PoolNode, SumNode, TrainingGraph

REGION_KINDS = ("parameters", "input", "output", "scratch", "input", "scratch", "scratch", "scratch")
REGION_NAMES = ("parameters", "input", "output", "state", "hyper", "scratch", "weights", "gradients")
FLAGS = ("forward", "backward", "update")
"""Programs that report saturation, in the order of their words among the flags."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """Places of a convolution's arrays."""

    master: Place
    velocity: Place
    gradient: Place
    forward: Copy
    backward: Copy


Emit = Callable[[VectorWork, dict[str, Tensor]], None]


@dataclass
class _Compiler:
    """Jobs of each program: what emits a node's instructions, once all tensors have their places."""

    graph: TrainingGraph
    arch: SatArch
    jobs: dict[str, list[tuple[str, Emit]]] = field(default_factory=lambda: {name: [] for name in PROGRAMS})

    def run(self) -> TrainingProgram:
        self.layout = Layout(self.graph, self.arch)
        self.scratch = Scratch(self.layout)
        self.fixed = {
            IMAGES: self.layout.host_tensor("images", IMAGES, INPUT),
            self.graph.output: self.layout.host_tensor("logits", self.graph.output, OUTPUT),
            "gradient": self.layout.gradient_input(),
        }
        self.flags, self.hyper = self.layout.flags(), self.layout.hyper()
        self.weights: dict[str, Weights] = {}
        self.records: dict[str, Place] = {}
        self._reserve()
        for step, node in enumerate(self.graph.nodes):
            self._forward(step, node)
        self._backward()
        self._updates()
        return self._assemble()

    def _reserve(self) -> None:
        for node in self.graph.nodes:
            if isinstance(node, ConvNode):
                forward, backward = (self.layout.copy(node, transposed=t) for t in (False, True))
                master, velocity, gradient = self.layout.conv(node)
                self.weights[node.name] = Weights(
                    master=master, velocity=velocity, gradient=gradient, forward=forward, backward=backward
                )
            elif isinstance(node, ChannelNode):
                kind = "norm" if node.constants else "bias"
                padded = self.layout.padded(node.channels)
                self.records[node.name] = self.layout.place(f"{node.name}.record", kind, STATE, (node.channels,), (padded,))

    def _job(self, program: str, layer: str, emit: Emit) -> None:
        self.jobs[program].append((layer, emit))

    # tensors --------------------------------------------------------------------------------------------------------------

    def _new(self, key: str, tensor: str, step: int) -> str:
        return key if key in self.fixed else self.scratch.tensor(key, tensor, step)

    def _read(self, step: int, *keys: str | None) -> None:
        for key in keys:
            if key is not None:
                self.scratch.used(key, step)

    # forward --------------------------------------------------------------------------------------------------------------

    def _forward(self, step: int, node: Node) -> None:
        source, target = node.source, node.target
        self._new(target, target, step)
        self._read(step, source)
        if isinstance(node, ConvNode):
            copy, g = self.weights[node.name].forward, node.geometry

            def convolve(work: VectorWork, t: dict[str, Tensor]) -> None:
                Product(
                    emitter=work.emitter, source=t[source], target=t[target], windows=forward_windows(g), weights=copy,
                    kernel=(g.kernel_h, g.kernel_w), flipped=False,
                ).emit()  # fmt: skip

            self._both(node.name, convolve)
        elif isinstance(node, PoolNode):
            self._both(node.name, lambda work, t: Pooling(work=work, node=node).forward(t[source], t[target]))
        elif isinstance(node, SumNode):
            self._read(step, node.residual)
            self._both(node.name, lambda work, t: work.add(t[source], t[node.residual], t[target], relu=node.relu))
        else:
            self._read(step, node.residual)
            records, residual = self.records[node.name], node.residual
            for program in ("forward", "infer"):
                self._job(program, node.name, lambda work, t, fixed=program == "infer": work.channel_forward(  # type: ignore[misc]
                    node, t[source], t[target], None if residual is None else t[residual], records, fixed=fixed))

    def _both(self, layer: str, emit: Emit) -> None:
        for program in ("forward", "infer"):
            self._job(program, layer, emit)

    # backward -------------------------------------------------------------------------------------------------------------

    def _backward(self) -> None:
        found: dict[str, list[str]] = {self.graph.output: ["gradient"]}
        step = len(self.graph.nodes)
        for node in reversed(self.graph.nodes):
            parts = found[node.target]
            while len(parts) > 1:
                step += 1
                parts[:2] = [self._sum(step, node.target, parts[0], parts[1])]
            step += 1
            for tensor, key in self._node_backward(step, node, parts[0]):
                found.setdefault(tensor, []).append(key)

    def _sum(self, step: int, tensor: str, a: str, b: str) -> str:
        total = self._new(f"sum {step} {tensor}", tensor, step)
        self._read(step, a, b)
        self._job("backward", f"sum of gradients of {tensor}", lambda work, t: work.add(t[a], t[b], t[total]))
        return total

    def _node_backward(self, step: int, node: Node, dz: str) -> list[tuple[str, str]]:
        """Emit a node's backward pass; returns (tensor, key) of the gradients that it contributes."""
        self._read(step, dz, node.source, node.target)
        if isinstance(node, ConvNode):
            return self._conv_backward(step, node, dz)
        if isinstance(node, PoolNode):
            dx = self._new(f"gradient {step} {node.source}", node.source, step)
            self._job("backward", node.name, lambda work, t: Pooling(work=work, node=node).backward(
                t[dz], t[node.source], t[node.target], t[dx]))
            return [(node.source, dx)]
        if isinstance(node, SumNode):
            return self._sum_backward(step, node, dz)
        return self._channel_backward(step, node, dz)

    def _sum_backward(self, step: int, node: SumNode, dz: str) -> list[tuple[str, str]]:
        """Both sources get the same gradient."""
        g = dz
        if node.relu:
            g = self._new(f"masked {step} {node.target}", node.target, step)
            self._job("backward", node.name, lambda work, t: work.mask(t[dz], t[node.target], t[g]))
        return [(node.source, g), (node.residual, g)]

    def _conv_backward(self, step: int, node: ConvNode, dz: str) -> list[tuple[str, str]]:
        weights, g, source = self.weights[node.name], node.geometry, node.source

        def weight_gradient(work: VectorWork, t: dict[str, Tensor]) -> None:
            WeightGradient(
                emitter=work.emitter, source=t[source], gradient=t[dz], windows=forward_windows(g), place=weights.gradient
            ).emit()

        self._job("backward", node.name, weight_gradient)
        if source == IMAGES:
            return []
        dx = self._new(f"gradient {step} {source}", source, step)

        def input_gradient(work: VectorWork, t: dict[str, Tensor]) -> None:
            for windows in gradient_windows(g):
                Product(
                    emitter=work.emitter, source=t[dz], target=t[dx], windows=windows, weights=weights.backward,
                    kernel=(g.kernel_h, g.kernel_w), flipped=True,
                ).emit()  # fmt: skip

        self._job("backward", node.name, input_gradient)
        return [(source, dx)]

    def _channel_backward(self, step: int, node: ChannelNode, dz: str) -> list[tuple[str, str]]:
        source, target, residual, records = node.source, node.target, node.residual, self.records[node.name]
        norm = node.constants is not None
        wanted = source != IMAGES
        # Without a ReLU the gradient goes on as it is, and only what a normalisation changes is a new tensor.
        dx = self._new(f"gradient {step} {source}", source, step) if wanted and (norm or node.relu) else None
        g = self._new(f"masked {step} {source}", source, step) if residual and node.relu and (norm or dx is None) else None
        self._job("backward", node.name, lambda work, t: work.channel_backward(
            node, t[dz], t[source], t[target], t[dx] if dx else None, t[g] if g else None, records))
        contributions = [(source, dx or dz)] if wanted else []
        if residual is not None:
            contributions.append((residual, g or (dz if norm or dx is None else dx)))
        return contributions

    # update ---------------------------------------------------------------------------------------------------------------

    def _updates(self) -> None:
        for node in self.graph.nodes:
            if isinstance(node, ConvNode):
                w = self.weights[node.name]
                self._job("update", node.name, lambda work, t, w=w: update.update_masters(  # type: ignore[misc]
                    work.emitter, w.master, w.velocity, w.gradient))
                for program in ("update", "prepare"):
                    self._job(program, node.name, lambda work, t, w=w, node=node: self._prune(work, node, w))  # type: ignore[misc]
            elif isinstance(node, ChannelNode):
                records = self.records[node.name]
                self._job("update", node.name, lambda work, t, r=records: update.update_channels(work.emitter, r))  # type: ignore[misc]

    def _prune(self, work: VectorWork, node: ConvNode, w: Weights) -> None:
        update.prune(work.emitter, w.master, w.forward, node.forward_pattern, transposed=False)
        if node.source != IMAGES:
            update.prune(work.emitter, w.master, w.backward, node.backward_pattern, transposed=True)

    # programs -------------------------------------------------------------------------------------------------------------

    def _assemble(self) -> TrainingProgram:
        tensors = self.fixed | self.scratch.settle()
        parameters = Parameters()
        emitters = {name: self._emit(name, parameters, tensors) for name in PROGRAMS}
        data = bytes(parameters.data)
        sizes = {PARAMETERS: len(data), **{region: WORD_BYTES * words for region, words in self.layout.sizes.items()}}
        regions = tuple(
            Region(name=name, kind=kind, size=sizes.get(number, 0), data=data if number == PARAMETERS else b"")
            for number, (name, kind) in enumerate(zip(REGION_NAMES, REGION_KINDS, strict=True))
        )
        return TrainingProgram(
            arch=self.arch, regions=regions,
            images={name: build_image(self.arch, emitter.instructions()) for name, emitter in emitters.items()},
            layers={name: tuple(emitter.layers) for name, emitter in emitters.items()},
            places=self.layout.places, graph_sha256=self.graph.structure_sha256,
        )  # fmt: skip

    def _emit(self, program: str, parameters: Parameters, tensors: dict[str, Tensor]) -> Emitter:
        emitter = Emitter(self.arch, parameters)
        work = VectorWork(emitter)
        emitter.layer = "saturation flag"
        if program in FLAGS:
            work.clear_flag()
        if program == "update":
            update.load_hyper(emitter)
        for layer, emit in self.jobs[program]:
            emitter.layer = layer
            emit(work, tensors)
        emitter.layer = "saturation flag"
        if program in FLAGS:
            work.store_flag(self.flags, FLAGS.index(program))
        return emitter


def compile_training(graph: TrainingGraph, arch: SatArch) -> TrainingProgram:
    """The programs of a training step on an architecture; raises CompileError with all obstacles if there are any."""
    if problems := check_training(graph, arch):
        raise CompileError(problems)
    return _Compiler(graph=graph, arch=arch).run()
