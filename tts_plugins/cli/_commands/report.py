"""`tts-plugins report`: a run as a page, a picture, or a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tts_plugins._internal.files import expanded, is_sqlite
from tts_plugins.bench.analysis.arm import Costs
from tts_plugins.bench.analysis.matched import Larger
from tts_plugins.bench.report import Placing, Run, as_dict, check_png, load, page, picture, png_of
from tts_plugins.bench.storage.store import Store
from tts_plugins.cli._arguments import options
from tts_plugins.cli._arguments.groups import PlacingGroup, grouped
from tts_plugins.cli._display import bench_view as view
from tts_plugins.cli._display.console import Debug, Html, Json, check_writable, emit, errors, say, write_file
from tts_plugins.errors import ConfigurationError
from tts_plugins.pools import Pool

RunFile = Annotated[Path, typer.Argument(metavar="RUN", help="The file that `tts-plugins bench --out` wrote.")]
Png = Annotated[Path | None, options.OUTPUT("The charts as a PNG; needs the extra bench.", metavar="FILE")]
Svg = Annotated[Path | None, options.OUTPUT("The charts as an SVG.", metavar="FILE")]


@grouped
def report(
    run: RunFile,
    html: Html = None,
    png: Png = None,
    svg: Svg = None,
    flops: PlacingGroup = PlacingGroup(),
    as_json: Json = False,
    quiet: options.Quiet = False,
    debug: Debug = False,
) -> None:
    """Show a run of `bench`, ended or still going: its table, one self-contained HTML page, or pictures.

    [dim]tts-plugins report bench.sqlite --html report.html[/]
    """
    with errors(debug):
        for path, option in ((html, "--html"), (png, "--png"), (svg, "--svg")):
            check_writable(path, option)
        if png is not None:
            check_png()
        place = placing(**vars(flops))
        with Store.read(run) as store:
            found = load(store)
        if not quiet and not as_json:
            view.show(found, place)
        deliver(found, place, html=html, png=png, svg=svg, as_json=as_json, quiet=quiet)


def deliver(
    run: Run,
    place: Placing | None,
    *,
    html: Path | None,
    as_json: bool,
    quiet: bool,
    png: Path | None = None,
    svg: Path | None = None,
) -> None:
    """Write what was asked for."""
    if html is not None:
        write_file(html, page(run, place))
    if svg is not None:
        write_file(svg, picture(run, place))
    if png is not None:
        write_file(png, png_of(picture(run, place)))
    if as_json:
        emit(as_dict(run, place))
    for path in filter(None, (html, svg, png)):
        if not quiet:
            say(f"written: {path}")


def placing(
    params: float | None, verifier_params: float | None, larger: Path | None, larger_params: float | None
) -> Placing | None:
    """Return how FLOPs are counted, and the larger model to compare with; None if no parameters are given.

    Raises:
        ConfigurationError: an option without the one that it needs, or a value that is not a number above 0.
        DataError: the larger model's file cannot be read.
    """
    for name, value in (("params", params), ("verifier-params", verifier_params), ("larger-params", larger_params)):
        if value is not None and value <= 0:
            raise ConfigurationError(f"--{name} {value:g} must be above 0, such as 1.35e8")
    if (larger is None) != (larger_params is None):
        raise ConfigurationError("--larger FILE and --larger-params N belong together; give both")
    if params is None:
        if larger is not None or verifier_params is not None:
            raise ConfigurationError("--larger and --verifier-params need --params N, the model's own parameters")
        return None
    costs = Costs(parameters=params, verifier_parameters=verifier_params or 0.0)
    return Placing(costs=costs, larger=None if larger is None else _larger(larger, larger_params or 0.0))


def _larger(path: Path, parameters: float) -> Larger:
    path = expanded(path)
    if not is_sqlite(path, "give a larger model's pool or run as --larger"):
        return Larger.of_pool(Pool.read(path), parameters)
    with Store.read(path) as store:
        run = load(store)
    single = min(run.summary.arms, key=lambda arm: arm.samples.value)
    if single.samples.value > 1:
        raise ConfigurationError(f"--larger {path}: no strategy there takes a single answer; run one with n=1")
    return Larger.of_arm(single, str(run.config.get("model")), parameters)
