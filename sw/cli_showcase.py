"""Commands that show what is reached: `bitloom demo ...` runs whole chains, `bitloom report ...` works tables out anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from sw.flow.terminal import console, progress_bars, reported, tell

demo = typer.Typer(help="Whole chains that really run.", no_args_is_help=True, rich_markup_mode=None)
report = typer.Typer(help="Tables of what cores reach, worked out anew.", no_args_is_help=True, rich_markup_mode=None)

PageOption = Annotated[Path | None, typer.Option(help="Also write a page with pictures to this file.")]

Result = dict[str, Any]


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
    from sw.flow.show import show_training

    with progress_bars() as advance:
        told = Tell(say=tell, steps=lambda what, done, total: advance(f"training, {what}", done, total))
        result = demo_sparse(out, config=SparseConfig(steps=steps, core_steps=core_steps), tell=told)
    show_training(console, result.proof, "2:8, ")
    show_training(console, result.dense_proof, "dense, ")
    data = result.to_dict()
    console.print(
        f"held-out accuracy {data['float_accuracy']:.2%} trained in torch, {data['fixed_accuracy']:.2%} as the core computes; a step "
        f"takes {data['cycles']:,} cycles, dense {data['dense_cycles']:,}: {data['speedup']:.2f} times faster, the array alone "
        f"{data['array_speedup']:.2f} times; {data['seconds']:.0f} s; report: {out / 'report.html'}",
        highlight=False,
        soft_wrap=True,
    )
    if result.proof.ok:
        prove = f"bitloom prove --arch {out / 'arch.json'} -o {out / 'design.record.json'}"
        record = out / "program.record.json"
        console.print(f"the program's record is {record}; a card also wants: {prove}", highlight=False, soft_wrap=True)
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
    out: PageOption = None,
) -> Result:
    """Whole training steps on 32 x 32 processing elements, dense and N:M-sparse, by the timing model; minutes for all networks."""
    from sw.flow import report_sat_page
    from sw.flow.report_sat import report_sat, to_dict

    with progress_bars() as advance:
        rows = report_sat(network or (), batch=batch, progress=advance)
    _show(report_sat_page, rows, out)
    return to_dict(rows)


@report.command()
@reported
def deform(
    configuration: Annotated[list[str] | None, typer.Option(help="Only this one, a to e; may be given again.")] = None,
    simulate: Annotated[bool, typer.Option(help="Run the Verilog and compare every byte: minutes, and 3 GB for d and e.")] = False,
    levels: Annotated[bool, typer.Option(help="Synthesise the core for its logic levels: ten minutes the first time.")] = False,
    out: PageOption = None,
) -> Result:
    """CoDeNet's five configurations on the Ultra96's core: frames per second, and where cycles go, beside the published ones."""
    from sw.flow import report_deform_page
    from sw.flow.report_deform import report_deform, to_dict

    with progress_bars() as advance:
        rows = report_deform(configuration or (), simulate=simulate, levels=levels, progress=advance, tell=tell)
    _show(report_deform_page, rows, out)
    return to_dict(rows)


def _show(page: Any, rows: Sequence[Any], out: Path | None) -> None:
    """Rows on the terminal and, if wanted, as a page; ``page`` is the module that has both."""
    page.show_rows(console, rows)
    if out is not None:
        page.write_page(out, rows)
        console.print(f"page: {escape(str(out))}", highlight=False, soft_wrap=True)
