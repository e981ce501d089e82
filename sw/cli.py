"""The `bitloom` command: parses, calls a function of ``sw.flow``, prints. Every command takes ``--json FILE``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from sw.flow.terminal import console, progress_bars, reported, tell, warn

app = typer.Typer(
    name="bitloom",
    help="Train PyTorch models in fixed point and run them, bit for bit, on an FPGA core that is proven in simulation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
demo = typer.Typer(help="Whole chains that really run.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(demo, name="demo")
report = typer.Typer(help="Tables of what cores reach, worked out anew.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(report, name="report")

ArchOption = Annotated[str, typer.Option("--arch", help="Architecture: a .json or .toml file, or 'default'.")]
InputsOption = Annotated[Path, typer.Option("--inputs", help="Integer codes (N, C, H, W): .npy, or .npz by input name.")]
DesignRecordOption = Annotated[Path | None, typer.Option(help="The design record of the core that is on the board.")]
ProgramRecordOption = Annotated[Path | None, typer.Option(help="The program record.")]
WithoutProofOption = Annotated[
    bool, typer.Option("--without-proof", help="Go on without records; the result is marked unproven.")
]

Result = dict[str, Any]


@app.command()
@reported
def check(
    target: Annotated[str, typer.Argument(help="A torch model as FILE.py:NAME, or an integer graph's file.")],
    input_shape: Annotated[
        str | None, typer.Option(help="Shape of the model's input, such as 1,3,32,32; needed to check that it compiles.")
    ] = None,
    arch: ArchOption = "default",
) -> Result:
    """List every layer that cannot be carried over to the core, each with its place and a way out."""
    from sw.flow.check import check_target
    from sw.flow.files import load_inference_arch
    from sw.flow.show import show_check

    result = check_target(target, _shape(input_shape), load_inference_arch(arch))
    show_check(console, target, result)
    return result.to_dict()


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts) or len(parts) not in (2, 4):
        raise ValueError(f"an input shape must be N,C,H,W or N,features, such as 1,3,32,32, not {text!r}")
    return tuple(int(part) for part in parts)


@app.command()
@reported
def train(
    model: Annotated[str, typer.Argument(help="The model, FILE.py:NAME: a class or function that makes it.")],
    data: Annotated[str, typer.Option(help="FILE.py:NAME, a function that returns (training batches, held-out batches).")],
    out: Annotated[Path, typer.Option(help="Folder of the run; one that holds an unfinished run is continued.")],
    recipe: Annotated[Path | None, typer.Option(help="How the model is quantised: a TOML file.")] = None,
    config: Annotated[Path | None, typer.Option(help="The trainer's configuration: a TOML file.")] = None,
    loss: Annotated[str | None, typer.Option(help="FILE.py:NAME, a function of outputs and targets; else cross entropy.")] = None,
    metric: Annotated[str | None, typer.Option(help="FILE.py:NAME, a held-out score of outputs and targets; else accuracy.")] = None,
    float_epochs: Annotated[int | None, typer.Option(help="Epochs in float; before anything of --config.")] = None,
    fixed_epochs: Annotated[int | None, typer.Option(help="Epochs in fixed point.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and order.")] = None,
) -> Result:
    """Train a model in float and then in fixed point, on data of your own; interrupted runs go on where they stopped."""
    from sw.flow.train import RECIPE, Sources, load_config, train_run

    given = {"float_epochs": float_epochs, "fixed_epochs": fixed_epochs, "seed": seed}
    text, name = ("", RECIPE) if recipe is None else (recipe.read_text(encoding="utf-8"), str(recipe))
    chosen = load_config(config, given)
    sources = Sources(model=model, data=data, recipe=text, recipe_name=name, config=chosen, loss=loss, metric=metric)
    with progress_bars() as advance:
        result = train_run(
            sources, out, lambda p: advance(f"training, {p.phase}", p.epoch, p.epochs, f", held-out {_score(p.accuracy, metric)}")
        )
    scores = [_score(result[f"{phase}_accuracy"], metric) for phase in ("float", "fixed")]
    console.print(
        f"{escape(str(out))}: held-out {scores[0]} in float, {scores[1]} in fixed point",
        highlight=False,
        soft_wrap=True,
    )
    return result


def _score(value: float, metric: str | None) -> str:
    """A held-out score in words: only accuracy is known to be a fraction."""
    return f"accuracy {value:.2%}" if metric is None else f"score {value:.5g}"


@app.command()
@reported
def export(
    run_folder: Annotated[Path, typer.Argument(help="The folder of a finished training.", metavar="RUN")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The integer graph's file.")],
    inputs: Annotated[Path | None, typer.Option(help="Also write held-out inputs as integer codes: a .npy file.")] = None,
    images: Annotated[int, typer.Option(help="How many inputs.", min=1)] = 64,
) -> Result:
    """Write the integer graph of a trained model: one file, all that the later steps need."""
    from sw.flow.train import export_run

    result = export_run(run_folder, output, inputs, images)
    console.print(
        f"{escape(str(output))}: {result['layers']} layers, {result['macs']:,} multiply-accumulates per input",
        highlight=False,
        soft_wrap=True,
    )
    return result


@app.command("compile")
@reported
def compile_(
    graph: Annotated[Path, typer.Argument(help="An integer graph's file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The program's file.")],
    arch: ArchOption = "default",
    windows: Annotated[bool, typer.Option(help="Images are written window by window where that is faster.")] = False,
) -> Result:
    """Compile an integer graph to a program."""
    from sw.flow.commands import compile_file
    from sw.flow.files import load_inference_arch

    result = compile_file(graph, load_inference_arch(arch), output, windows=windows)
    console.print(
        f"{escape(str(output))}: {result['instructions']} instructions for core {result['arch_id']}, {result['bytes']:,} bytes",
        highlight=False,
        soft_wrap=True,
    )
    return result


@app.command()
@reported
def verify(
    graph: Annotated[Path, typer.Option(help="The integer graph's file.")],
    program: Annotated[Path, typer.Option(help="The program's file.")],
    inputs: InputsOption,
    rtl: Annotated[Path | None, typer.Option(help="Check this Verilog file in place of the generated one.")] = None,
    images: Annotated[int | None, typer.Option(help="Compare only the first so many images.")] = None,
    tensors: Annotated[bool, typer.Option(help="Show whether the compared tensors are alive.")] = False,
    record: Annotated[Path | None, typer.Option(help="Write the program record, which boards need, if all is equal.")] = None,
    interpreter_only: Annotated[
        bool, typer.Option("--interpreter-only", help="Leave the Verilog out: seconds, and no simulator is needed.")
    ] = False,
) -> Result:
    """Compare graph, interpreter and simulated Verilog: every output, every byte that every instruction writes, every cycle."""
    from sw.flow.commands import verify_files
    from sw.flow.gate import verify_and_record
    from sw.flow.show import show_report

    if record is not None and interpreter_only:
        raise ValueError("a program record says that the Verilog computes the same: leave out --interpreter-only or --record")
    with progress_bars() as progress:
        if record is not None:
            report = verify_and_record(graph, program, inputs, record, rtl=rtl, images=images, progress=progress)
        else:
            report = verify_files(
                graph, program, inputs, rtl=rtl, images=images, interpreter_only=interpreter_only, progress=progress
            )
    show_report(console, report, tensors=tensors)
    return report.to_dict()


@app.command()
@reported
def prove(
    output: Annotated[Path, typer.Option("-o", "--output", help="The design record's file.")],
    arch: ArchOption = "default",
    rtl: Annotated[Path | None, typer.Option(help="Prove this Verilog file in place of the generated one.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of the random programs: 1 to this number.", min=1)] = 3,
    programs: Annotated[int, typer.Option(help="Random programs per seed.", min=10)] = 60,
) -> Result:
    """Prove a design: run the coverage programs on its Verilog, compare with the machine, write the design record."""
    from sw.flow.files import load_arch
    from sw.flow.gate import prove_file
    from sw.flow.show import show_proof

    with progress_bars() as progress:
        result = prove_file(
            load_arch(arch), output, rtl=rtl, seeds=range(1, seeds + 1), programs=programs, progress=progress, tell=tell
        )
    show_proof(console, result)
    return result


@app.command()
@reported
def run(
    program: Annotated[Path, typer.Argument(help="The program's file.")],
    inputs: InputsOption,
    device: Annotated[str, typer.Option(help="interpreter, sim, or uart: a board on a serial line.")] = "interpreter",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Output codes: .npy, or .npz by name.")] = None,
    port: Annotated[str | None, typer.Option(help="Serial port of uart; the only USB one if not given.")] = None,
    baud: Annotated[int | None, typer.Option(help="Baud rate of uart; that of the bitstream's manifest.")] = None,
    design_record: DesignRecordOption = None,
    program_record: ProgramRecordOption = None,
    without_proof: WithoutProofOption = False,
) -> Result:
    """Run a program on a device. A board runs only what its records prove; they are looked for beside the program."""
    from sw.flow.commands import run_file
    from sw.flow.gate import board_options

    options = board_options(device, program, design_record, program_record, without_proof=without_proof, warn=warn)
    options |= _line_options(device, port, baud)
    result = run_file(program, device, inputs, output, tell, options)
    for name, shape in result["outputs"].items():
        console.print(f"{escape(name)}: codes of shape {tuple(shape)}", highlight=False)
    for name, value in result["counters"].items():
        console.print(f"{name}: {value:,}", highlight=False)
    return result


def _line_options(device: str, port: str | None, baud: int | None) -> dict[str, Any]:
    """Options of a serial line; refused for a device that has none."""
    given = {name: value for name, value in (("port", port), ("baud", baud)) if value is not None}
    if given and device != "uart":
        raise ValueError(f"--device must be uart where --{' and --'.join(given)} is given, not {device}")
    return given


@app.command("list")
@reported
def list_(program: Annotated[Path, typer.Argument(help="The program's file.")]) -> Result:
    """Print a program as text, one line per instruction."""
    from hw.spec.program import Program
    from sw.compiler import listing

    loaded = Program.load(program)
    print(listing(loaded))
    return {"ok": True, "instructions": loaded.instruction_count, "sha256": loaded.digest}


@app.command()
@reported
def emit(
    output: Annotated[Path, typer.Option("-o", "--output", help="The Verilog file.")],
    arch: ArchOption = "default",
) -> Result:
    """Write the one Verilog file of an architecture, which is simulated and built alike."""
    from sw.flow.commands import emit_file
    from sw.flow.files import load_arch

    result = emit_file(load_arch(arch), output, tell)
    console.print(f"{escape(str(output))}: module {result['top']}, sha256 {result['sha256']}", highlight=False, soft_wrap=True)
    return result


@app.command()
@reported
def resources(
    arch: ArchOption = "default",
    family: Annotated[str, typer.Option(help="xcup (UltraScale+) or ecp5.")] = "xcup",
    part: Annotated[str | None, typer.Option(help="The part; the family's smallest if none is named.")] = None,
    paths: Annotated[int, typer.Option(help="How many of the longest paths to show.")] = 5,
) -> Result:
    """Synthesise the core and print what it takes of a part and its longest paths (modelled); minutes the first time."""
    from sw.flow.files import load_arch
    from sw.flow.resources import core_resources, show_resources

    result = core_resources(load_arch(arch), family, part, tell=tell)
    show_resources(console, result, paths)
    return result.to_dict()


@app.command()
@reported
def build(
    board: Annotated[str, typer.Option("--board", help="The board: ulx3s.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the bitstream, its texts, reports and manifest.")],
    arch: Annotated[str | None, typer.Option("--arch", help="Architecture in place of the board's own: a .json or .toml file.")] = None,
    record: Annotated[Path | None, typer.Option(help="The core's design record, where it is not in the folder.")] = None,
    without_proof: WithoutProofOption = False,
) -> Result:
    """Build a board's bitstream with open tools: synthesis, place and route, packing. Fails where the clock is not met."""
    from sw.flow.build_board import build_board
    from sw.flow.files import load_inference_arch

    chosen = None if arch is None else load_inference_arch(arch)
    with progress_bars() as progress:
        result = build_board(
            board, out, arch=chosen, record=record, without_proof=without_proof, progress=progress, tell=tell, warn=warn
        )
    console.print(
        f"{escape(result['bitstream_path'])}: {result['bitstream']['bytes']:,} bytes, routed at {result['routed_mhz']:.1f} MHz for "
        f"a clock of {result['clock_mhz']:g} MHz{'' if result['proven'] else '; NOT PROVEN'}",
        highlight=False,
        soft_wrap=True,
    )
    return result


@demo.command()
@reported
def digits(
    out: Annotated[Path, typer.Option(help="Folder for the artefacts and the report.")] = Path("build/digits"),
    images: Annotated[int, typer.Option(help="Held-out images to compare in the simulator, 1 to 450.")] = 100,
) -> Result:
    """Train a network on digits in fixed point, compile it, simulate and prove the core, compare every number, write a report."""
    from sw.flow.demo_digits import Tell, demo_digits, show_records
    from sw.flow.show import show_report

    with progress_bars() as images_done:
        told = Tell(
            say=tell,
            epoch=lambda p: images_done(f"training, {p.phase}", p.epoch, p.epochs, f", held-out accuracy {p.accuracy:.1%}"),
            images=images_done,
        )
        result = demo_digits(out, images=images, tell=told)
    show_report(console, result.report)
    show_records(console, out, result)
    data = result.to_dict()
    console.print(
        f"accuracy {data['float_accuracy']:.2%} in float, {data['fixed_accuracy']:.2%} in fixed point; "
        f"{data['cycles']:,} cycles per image; {data['seconds']:.0f} s; report: {out / 'report.html'}",
        highlight=False,
        soft_wrap=True,
    )
    return data


@demo.command()
@reported
def sparse(
    out: Annotated[Path, typer.Option(help="Folder for the artefacts and the report.")] = Path("build/sparse"),
    steps: Annotated[int, typer.Option(help="Training steps in torch and the emulator.", min=1)] = 400,
    core_steps: Annotated[int, typer.Option(help="The first of them that run on the simulated core too.", min=1)] = 10,
) -> Result:
    """Train digits 2:8-sparse (BDWP), run steps of it on the simulated training core, compare every number, write a report."""
    from sw.flow.demo_sparse import SparseConfig, Tell, demo_sparse
    from sw.flow.show import show_links

    with progress_bars() as advance:
        told = Tell(say=tell, steps=lambda what, done, total: advance(f"training, {what}", done, total))
        result = demo_sparse(out, config=SparseConfig(steps=steps, core_steps=core_steps), tell=told)
    show_links(console, f"2:8, {core_steps} training steps", result.report.links.values(), result.report.first)
    show_links(console, "dense, 1 training step", result.dense.links.values(), result.dense.first)
    data = result.to_dict()
    console.print(
        f"held-out accuracy {data['float_accuracy']:.2%} trained in torch, {data['fixed_accuracy']:.2%} as the core computes; a step "
        f"takes {data['cycles']:,} cycles, dense {data['dense_cycles']:,}: {data['speedup']:.2f} times faster, the array alone "
        f"{data['array_speedup']:.2f} times; {data['seconds']:.0f} s; report: {out / 'report.html'}",
        highlight=False,
        soft_wrap=True,
    )
    return data


@demo.command()
@reported
def detect(
    out: Annotated[Path, typer.Option(help="Folder for the artefacts and the report.")] = Path("build/detect"),
    steps: Annotated[int, typer.Option(help="Training steps in float; fixed point takes a quarter as many.", min=4)] = 2400,
    scenes: Annotated[int, typer.Option(help="Test scenes that run on the simulated core, 1 to 200.", min=1, max=200)] = 8,
) -> Result:
    """Train a small CoDeNet to find digits in scenes, run it on the simulated core, compare every number, draw its boxes."""
    from sw.flow.demo_detect import DetectConfig, Tell, demo_detect
    from sw.flow.show import show_report

    with progress_bars() as advance:
        told = Tell(
            say=tell,
            steps=lambda phase, losses, total: advance(f"training, {phase}", losses.step, total, f", loss {losses.total:.3f}"),
            images=advance,
        )
        config = DetectConfig(float_steps=steps, fixed_steps=steps // 4, core_scenes=scenes)
        result = demo_detect(out, config=config, tell=told)
    show_report(console, result.report)
    data = result.to_dict()
    console.print(
        f"AP50 {data['float_ap50']:.1%} in float, {data['fixed_ap50']:.1%} in fixed point with whole-pixel offsets; {data['cycles']:,} "
        f"cycles per scene; {data['seconds']:.0f} s; report: {out / 'report.html'}",
        highlight=False,
        soft_wrap=True,
    )
    return data


@report.command()
@reported
def sat(
    network: Annotated[list[str] | None, typer.Option(help="Only networks whose name holds this; may be given again.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images of a step, in place of the stated numbers.", min=2)] = None,
    out: Annotated[Path | None, typer.Option(help="Also write a page with pictures to this file.")] = None,
) -> Result:
    """Whole training steps on 32 x 32 processing elements, dense and N:M-sparse, by the timing model; minutes for all networks."""
    from sw.flow.report_sat import report_sat, to_dict
    from sw.flow.report_sat_page import show_rows, write_page

    with progress_bars() as advance:
        rows = report_sat(network or (), batch=batch, progress=advance)
    show_rows(console, rows)
    if out is not None:
        write_page(out, rows)
        console.print(f"page: {escape(str(out))}", highlight=False, soft_wrap=True)
    return to_dict(rows)


@report.command()
@reported
def deform(
    configuration: Annotated[list[str] | None, typer.Option(help="Only this one, a to e; may be given again.")] = None,
    simulate: Annotated[bool, typer.Option(help="Run the Verilog and compare every byte: minutes, and 3 GB for d and e.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write a page with pictures to this file.")] = None,
) -> Result:
    """CoDeNet's five configurations on the Ultra96's core: frames per second, and where cycles go, beside the published ones."""
    from sw.flow.report_deform import report_deform, to_dict
    from sw.flow.report_deform_page import show_rows, write_page

    with progress_bars() as advance:
        rows = report_deform(configuration or (), simulate=simulate, progress=advance)
    show_rows(console, rows)
    if out is not None:
        write_page(out, rows)
        console.print(f"page: {escape(str(out))}", highlight=False, soft_wrap=True)
    return to_dict(rows)


def main() -> None:
    """Entry point; Ctrl-C ends without a traceback, and so does SIGTERM: both stop the tools that run."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
