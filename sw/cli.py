"""The `bitloom` command: parses, calls a function of ``sw.flow``, prints. Every command takes ``--json FILE``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from sw.cli_bridges import bridges
from sw.cli_showcase import demo, report
from sw.flow.terminal import console, progress_bars, reported, tell, warn

app = typer.Typer(
    name="bitloom",
    help="Train PyTorch models in fixed point and run them, bit for bit, on an FPGA core that is proven in simulation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(demo, name="demo")
app.add_typer(report, name="report")
app.add_typer(bridges)

ArchOption = Annotated[str, typer.Option("--arch", help="Architecture: a .json or .toml file, or 'default'.")]
InputsOption = Annotated[Path, typer.Option("--inputs", help="Integer codes (N, C, H, W): .npy, or .npz by input name.")]
DesignRecordOption = Annotated[Path | None, typer.Option(help="The design record of the core that is on the board.")]
ProgramRecordOption = Annotated[Path | None, typer.Option(help="The program record.")]
WithoutProofOption = Annotated[
    bool, typer.Option("--without-proof", help="Go on without records; the result is marked unproven.")
]

BOARDS = ", ".join(sorted({path.parent.name for path in (Path(__file__).parents[1] / "boards").glob("*/*.toml")}))
"""Each is a folder with its description."""

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
    graph: Annotated[Path, typer.Argument(help="An integer graph's file, or a training graph's.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The program's file.")],
    arch: ArchOption = "default",
    windows: Annotated[bool, typer.Option(help="Images are written window by window where that is faster.")] = False,
) -> Result:
    """Compile an integer graph to a program; a training graph where the architecture is the training core's."""
    from sw.flow.commands import compile_file
    from sw.flow.files import load_arch

    result = compile_file(graph, load_arch(arch), output, windows=windows)
    console.print(
        f"{escape(str(output))}: {result['instructions']} instructions for core {result['arch_id']}, {result['bytes']:,} bytes",
        highlight=False,
        soft_wrap=True,
    )
    return result


@app.command()
@reported
def verify(
    graph: Annotated[Path, typer.Option(help="The integer graph's file, or the training graph's.")],
    program: Annotated[Path, typer.Option(help="The program's file.")],
    inputs: Annotated[Path, typer.Option(
        "--inputs", help="Integer codes (N, C, H, W): .npy, or .npz by input name. Of a training: .npz with images, float16 "
        "(N, H, W, C), and labels (N,), or train_images and train_labels.")],
    rtl: Annotated[Path | None, typer.Option(help="Check this Verilog file in place of the generated one.")] = None,
    images: Annotated[int | None, typer.Option(help="Compare only the first so many images; of a training, batches.")] = None,
    tensors: Annotated[bool, typer.Option(help="Show whether the compared tensors are alive.")] = False,
    record: Annotated[Path | None, typer.Option(help="Write the program record, which boards need, if all is equal.")] = None,
    interpreter_only: Annotated[
        bool, typer.Option("--interpreter-only", help="Leave the Verilog out: seconds, and no simulator is needed.")
    ] = False,
) -> Result:
    """Compare graph, interpreter and simulated Verilog: every output, every byte that every instruction writes, every cycle.

    Of a training program: its inputs are images and labels of batches, and every parameter is compared after every step.
    """
    from sw.flow.commands import is_training_program, verify_files
    from sw.flow.gate import verify_and_record
    from sw.flow.show import show_report, show_training
    from sw.flow.verify_training import verify_training_files

    if record is not None and interpreter_only:
        raise ValueError("a program record says that the Verilog computes the same: leave out --interpreter-only or --record")
    if is_training_program(program):
        if tensors:
            raise ValueError("--tensors tells of the tensors of an inference: leave it out for a training")
        with progress_bars() as progress:
            proof = verify_training_files(
                graph, program, inputs,
                rtl=rtl, steps=images, interpreter_only=interpreter_only, record=record, progress=progress, tell=tell,
            )  # fmt: skip
        show_training(console, proof)
        return proof.to_dict()
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
    device: Annotated[
        str, typer.Option(help="interpreter, sim, uart: a board on a serial line, pynq: on that board, or xdma: a PCIe card.")
    ] = "interpreter",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Output codes: .npy, or .npz by name.")] = None,
    port: Annotated[str | None, typer.Option(help="Serial port of uart; the only USB one if not given.")] = None,
    baud: Annotated[int | None, typer.Option(help="Baud rate of uart; that of the bitstream's manifest.")] = None,
    bitstream: Annotated[Path | None, typer.Option(help="The .bit file of pynq, with its .hwh file beside it.")] = None,
    card: Annotated[int | None, typer.Option(help="Number of the card of xdma, 0 if not given.")] = None,
    design_record: DesignRecordOption = None,
    program_record: ProgramRecordOption = None,
    without_proof: WithoutProofOption = False,
) -> Result:
    """Run a program on a device. A board runs only what its records prove; they are looked for beside the program."""
    from sw.flow.commands import run_file
    from sw.flow.gate import board_options

    options = board_options(device, program, design_record, program_record, without_proof=without_proof, warn=warn)
    options |= _own_options(device, port=port, baud=baud, bitstream=bitstream, card=card)
    result = run_file(program, device, inputs, output, tell, options)
    for name, shape in result["outputs"].items():
        console.print(f"{escape(name)}: codes of shape {tuple(shape)}", highlight=False)
    for name, value in result["counters"].items():
        console.print(f"{name}: {value:,}", highlight=False)
    return result


OWN_OPTIONS = {"uart": {"port": "port", "baud": "baud"}, "pynq": {"bitstream": "bitstream"}, "xdma": {"card": "index"}}
"""Options of one kind of device alone, by the command's name and by ``open_device``'s."""


def _own_options(device: str, **given: Any) -> dict[str, Any]:
    """Options of the device's kind; those of another are refused, and one that it needs is asked for."""
    for kind, names in OWN_OPTIONS.items():
        told = [name for name in names if given[name] is not None]
        if told and device != kind:
            raise ValueError(f"--device must be {kind} where --{' and --'.join(told)} is given, not {device}")
    if device == "pynq" and given["bitstream"] is None:
        raise ValueError("--device pynq needs the board's bitstream: give --bitstream FILE.bit")
    own = OWN_OPTIONS.get(device, {})
    return {own[name]: value for name, value in given.items() if name in own and value is not None}


@app.command("list")
@reported
def list_(program: Annotated[Path, typer.Argument(help="The program's file.")]) -> Result:
    """Print a program, or those of a training step, as text, one line per instruction."""
    from sw.flow.commands import list_file

    text, result = list_file(program)
    print(text)
    return result


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
    out: Annotated[Path, typer.Option("--out", help="Folder for the bitstream, its texts, reports and manifest.")],
    board: Annotated[str | None, typer.Option("--board", help=f"The board: {BOARDS}.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--import", help="Take back a folder that was prepared here and run in Vivado elsewhere.")
    ] = None,
    arch: Annotated[str | None, typer.Option("--arch", help="Architecture in place of the board's own: a .json or .toml file.")] = None,
    record: Annotated[Path | None, typer.Option(help="The core's design record, where it is not in the folder.")] = None,
    without_proof: WithoutProofOption = False,
    vivado: Annotated[Path | None, typer.Option(help="Vivado's program, where it is not on the PATH.")] = None,
) -> Result:
    """Build a board's bitstream, with open tools or with Vivado; where Vivado is not, prepare a folder to run it in elsewhere.

    Fails where the clock is not met.
    """
    from sw.flow.build_board import build_board, import_board, sentence
    from sw.flow.files import load_arch

    if (board is None) == (folder is None) or (folder and (arch or vivado)):
        raise ValueError(
            f"name a board, --board {BOARDS.replace(', ', '|')}, or a folder, --import FOLDER without --arch and --vivado"
        )
    proof: dict[str, Any] = {"record": record, "without_proof": without_proof, "tell": tell, "warn": warn}
    if folder is not None:
        result = import_board(folder, out, **proof)
    else:
        chosen = None if arch is None else load_arch(arch)
        with progress_bars() as progress:
            result = build_board(str(board), out, arch=chosen, arch_file=arch or "", vivado=vivado, progress=progress, **proof)
    console.print(escape(sentence(result)), highlight=False, soft_wrap=True)
    return result


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
