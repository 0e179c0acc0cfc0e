"""Makes the documentation's pictures from a finished demo, into docs/pictures.

python -m tools.make_pictures [--demo_dir=demo] [--output_dir=docs/pictures]

The page, a report, a contact sheet, the six-layer network, the graph of the Beam job, the parts of
the stream, and its page after `make demo-stream`. For the pages and the report it needs a Chromium,
as the page's tests do.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags
from matplotlib import pyplot
from matplotlib.patches import FancyBboxPatch, Polygon
from PIL import Image

from common import command
from common.errors import UserFacingError, require
from examples import demo_stream
from tests.support import browser as browser_maker
from tests.support.running_app import running_app

_DEMO_DIR = flags.DEFINE_string("demo_dir", "demo", "What `make demo` left.")
_PICTURES_DIR = flags.DEFINE_string("output_dir", "docs/pictures", "Where the pictures go.")

MAX_BYTES = 1_500_000  # of all pictures together
COLORS = 160  # of a picture: enough for spectrograms, and a third of the bytes
INK, PAPER, ACCENT = "#1b1b3a", "#ffffff", "#5b4fc7"


def save(picture: Image.Image, path: pathlib.Path, *, width: int) -> None:
    """Writes a PNG of at most this width, with few colors."""
    if picture.width > width:
        height = round(picture.height * width / picture.width)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    small = picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path}  {picture.width}×{picture.height}, {path.stat().st_size:,} bytes", flush=True)


# ------------------------------------------------------------------------------- in a browser


@contextlib.contextmanager
def open_browser() -> Iterator[Any]:
    """Yields a headless Chromium of Playwright."""
    from playwright.sync_api import sync_playwright

    try:
        found = browser_maker.chromium()
    except browser_maker.NoBrowser as error:
        raise UserFacingError(str(error)) from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found.path,
            env={**os.environ, **found.environment},
            args=["--no-sandbox", "--disable-gpu"],  # root, as in most containers, has none
        )
        yield browser
        browser.close()


def shoot_page(browser: Any, demo_dir: pathlib.Path, path: pathlib.Path) -> None:
    """The web page with the prediction of the library's largest mp3."""
    song = max((demo_dir / "library").rglob("*.mp3"), key=os.path.getsize)
    with running_app(demo_dir / "export") as app:
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.goto(app.url)
        page.set_input_files("#file", song)
        page.wait_for_selector("#result", state="visible")
        page.wait_for_timeout(1500)
        page.screenshot(path=path, full_page=True)
        page.close()


def shoot_report(browser: Any, demo_dir: pathlib.Path, path: pathlib.Path) -> None:
    """The top of the report on the demo's network."""
    page = browser.new_page(viewport={"width": 1000, "height": 1250})
    page.goto((demo_dir / "model" / "report.html").resolve().as_uri())
    page.wait_for_timeout(500)
    page.screenshot(path=path)
    page.close()


def shoot_stream(browser: Any, live: pathlib.Path, path: pathlib.Path) -> None:
    """The page of `make demo-stream`, as it was at the end."""
    server = demo_stream.serve_folder(live, 0)
    page = browser.new_page(viewport={"width": 1000, "height": 1000})
    page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
    page.wait_for_selector("#updates tr")
    page.wait_for_timeout(1500)
    bottom = page.evaluate("document.querySelector('table').parentElement.offsetTop")
    height = page.evaluate("document.querySelector('table').parentElement.offsetHeight")
    page.set_viewport_size({"width": 1000, "height": int(bottom + height + 16)})
    page.screenshot(path=path)
    page.close()
    server.shutdown()


def put_side_by_side(paths: list[pathlib.Path], path: pathlib.Path) -> None:
    """The tops of pictures beside each other, for the README."""
    pictures = [Image.open(each).convert("RGB") for each in paths]
    height, gap = min(picture.height for picture in pictures), 24
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    whole = Image.new("RGB", (width, height), "#d0d0d8")
    x = 0
    for picture in pictures:
        whole.paste(picture.crop((0, 0, picture.width, height)), (x, 0))
        x += picture.width + gap
    save(whole, path, width=1400)


# ------------------------------------------------------------------------------------ drawings


@dataclasses.dataclass(frozen=True)
class Block:
    """A tensor of the network: its height, width and channels, and what made it."""

    height: int
    width: int
    channels: int
    made_by: str


def blocks_of_network() -> list[Block]:
    """The six-layer network's tensors, asked of the network itself."""
    from common.spectrogram import SpectrogramParams
    from trainer.model.poster import build_network
    from trainer.network_config import PosterConfig

    params = SpectrogramParams()
    network = build_network(
        PosterConfig(convolutions=6, color="rgb"),
        shape=params.shape,
        num_classes=3,
    )
    _, height, width, channels = network.get_layer("rgb").output.shape
    blocks = [Block(height, width, channels, "RGB picture")]
    for number in range(1, 7):
        kernel = "×".join(map(str, network.get_layer(f"conv{number}").kernel_size))
        pool = network.get_layer(f"pool{number}")
        made_by = f"conv {kernel}, ReLU\nmax pool {'×'.join(map(str, pool.pool_size))}"
        _, height, width, channels = pool.output.shape
        blocks.append(Block(height, width, channels, made_by))
    return blocks


def draw_network(path: pathlib.Path) -> None:
    """The tensors as boxes, from the picture to the three classes."""
    figure, axes = pyplot.subplots(figsize=(13, 4.4), dpi=110)
    x = 0.0
    for number, block in enumerate(blocks_of_network()):
        width, height = 0.25 + block.channels**0.5 / 14, block.height / 34
        depth = block.width / 110
        corner = (depth * 0.6, depth * 0.5)
        front = [(x, 0), (x + width, 0), (x + width, height), (x, height)]
        top = [front[3], front[2], *[(p[0] + corner[0], p[1] + corner[1]) for p in front[2:]]]
        side = [front[1], *[(p[0] + corner[0], p[1] + corner[1]) for p in front[1:3]], front[2]]
        color = pyplot.get_cmap("magma")(0.85 - 0.1 * number)
        for face, shade in ((front, 0.95), (top, 0.7), (side, 0.5)):
            axes.add_patch(Polygon(face, facecolor=color, alpha=shade, edgecolor=INK, lw=0.8))
        size = f"{block.height}×{block.width}×{block.channels}"
        middle = x + (width + corner[0]) / 2
        axes.text(middle, height + corner[1] + 0.12, size, ha="center", fontsize=10, color=INK)
        axes.text(x + width / 2, -0.15, block.made_by, ha="center", va="top", fontsize=9, color=INK)
        x += width + corner[0] + 1.2
    for name, height in (("flatten\ndense 512, ReLU\ndropout", 1.6), ("3 classes", 0.5)):
        box = FancyBboxPatch((x, 0), 0.12, height, boxstyle="round,pad=0.04", fc=ACCENT, ec=INK)
        axes.add_patch(box)
        axes.text(x + 0.06, -0.15, name, ha="center", va="top", fontsize=9, color=INK)
        x += 1.7
    axes.set_xlim(-0.7, x - 0.9)
    axes.set_ylim(-1.0, 4.3)
    axes.set_aspect("equal")
    axes.axis("off")
    figure.savefig(path, facecolor=PAPER, bbox_inches="tight")
    pyplot.close(figure)


def graph_of_job() -> tuple[dict[str, list[str]], set[tuple[str, str]]]:
    """The Beam job's top transforms: {name: those it reads}, and which of these are side inputs."""
    import apache_beam as beam

    from beam_pipelines import dataset_job, pipeline
    from beam_pipelines.output_folder import Mode, Work
    from common.dataset_config import DatasetConfig
    from configs import dataset_artist

    job = dataset_job.Job(
        config=DatasetConfig.from_dict(dataset_artist.get_config().to_dict()),
        tracks_csv="tracks.csv",
        catalog_sha256="",
        audio_dir="audio",
        output_dir="dataset",
        work=Work(mode=Mode.NEW),
        run_id="",
        max_reject_fraction=1.0,
    )
    graph = beam.Pipeline()
    pipeline.build_dataset(graph, job)
    proto = graph.to_runner_api()
    transforms = proto.components.transforms
    roots = [transforms[name] for name in proto.root_transform_ids]
    tops = [transforms[name] for root in roots for name in root.subtransforms]
    maker = {collection: t.unique_name for t in tops for collection in t.outputs.values()}
    reads: dict[str, list[str]] = {}
    side: set[tuple[str, str]] = set()
    for transform in tops:
        made_by = {tag: maker[name] for tag, name in transform.inputs.items() if name in maker}
        reads[transform.unique_name] = list(dict.fromkeys(made_by.values()))
        side |= {(by, transform.unique_name) for tag, by in made_by.items() if "side" in tag}
    return reads, side


def layers_of(reads: Mapping[str, list[str]]) -> list[list[str]]:
    """The transforms by their longest way from a source, near those they read."""
    depth: dict[str, int] = {}
    for name in reads:  # in the order in which they were applied: what is read comes first
        depth[name] = 1 + max((depth[source] for source in reads[name]), default=-1)
    for name in reversed(list(reads)):  # a source stands just above its first reader
        below = [depth[reader] for reader, sources in reads.items() if name in sources]
        if below:
            depth[name] = min(below) - 1
    layers: dict[int, list[str]] = collections.defaultdict(list)
    for name in reads:
        layers[depth[name]].append(name)
    place: dict[str, float] = {}
    for level in sorted(layers):
        layers[level].sort(
            key=lambda name: statistics.mean(
                [place[source] for source in reads[name] if source in place] or [0.0]
            )
        )
        for i, name in enumerate(layers[level]):
            place[name] = i - (len(layers[level]) - 1) / 2
    return [layers[level] for level in sorted(layers)]


def draw_beam_graph(path: pathlib.Path) -> None:
    """The transforms of the dataset job, top to bottom; dashed are side inputs."""
    reads, side = graph_of_job()
    layers = layers_of(reads)
    place = {
        name: (3.4 * (i - (len(layer) - 1) / 2), -1.0 * level)
        for level, layer in enumerate(layers)
        for i, name in enumerate(layer)
    }
    figure, axes = pyplot.subplots(figsize=(9, 0.75 * len(layers)), dpi=100)
    far = 0
    for name, sources in reads.items():
        for source in sources:
            dashed = (source, name) in side
            (x0, y0), (x1, y1) = place[source], place[name]
            bend = 0.0
            if y0 - y1 > 1.5:  # around what lies between, now on one side and now on the other
                far += 1
                bend = (-0.95, 0.6, 0.22)[far % 3]
            axes.annotate(
                "",
                (x1, y1 + 0.27),
                (x0, y0 - 0.27),
                zorder=0,
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": ACCENT if dashed else INK,
                    "linestyle": "--" if dashed else "-",
                    "connectionstyle": f"arc3,rad={bend}",
                    "lw": 1.1,
                },
            )
    for name, (x, y) in place.items():
        axes.text(
            x,
            y,
            name,
            ha="center",
            va="center",
            fontsize=11,
            color=INK,
            bbox={"boxstyle": "round,pad=0.35", "fc": "#eeecff", "ec": INK, "lw": 0.9},
        )
    xs = [x for x, _ in place.values()]
    axes.text(min(xs) - 2, 0, "dashed: side input", color=ACCENT, fontsize=10, va="center")
    axes.set_xlim(min(xs) - 2.6, max(xs) + 2.6)
    axes.set_ylim(-len(layers) + 0.4, 0.6)
    axes.axis("off")
    figure.savefig(path, facecolor=PAPER, bbox_inches="tight")
    pyplot.close(figure)


# Of the stream's parts: (name, what is in it, column, row); a command is a name with a dot.
PARTS = (
    ("announcements", "Kafka, Pub/Sub,\na folder, gs://", 0, 0),
    ("audio", "local or gs://", 0, 1),
    ("beam_pipelines.\nstream_dataset", "decodes and splits,\neach exactly once", 1, 0),
    ("dataset", "generation 0\ngeneration 1\ngeneration 2 …", 2, 0),
    ("beam_pipelines.\ncompact", "many become one", 2, 1),
    ("trainer.follow", "tests, trains,\nasks the gate", 3, 0),
    ("set aside", "gate.json, gate.html", 3, 1),
    ("export", "version 1\nversion 2\nversion 3 …", 4, 0),
    ("serving.app", "takes up the newest", 5, 0),
    ("answers", "each names\nits version", 5, 1),
)
# (from, to, what is handed over), by their places above.
HANDED = (
    (0, 2, ""),
    (1, 2, ""),
    (2, 3, "a generation"),
    (3, 4, ""),
    (4, 3, ""),
    (3, 5, "what is new"),
    (5, 6, ""),
    (5, 7, "what passes"),
    (7, 8, ""),
    (8, 9, ""),
)


def draw_stream(path: pathlib.Path) -> None:
    """The parts of the stream and what they hand on: commands are filled, files are not."""
    figure, axes = pyplot.subplots(figsize=(13, 3.5), dpi=110)
    width, height, across, down = 2.15, 1.15, 2.75, 1.6
    middle = [(column * across, -row * down) for _, _, column, row in PARTS]
    for (name, text, _, _), (x, y) in zip(PARTS, middle, strict=True):
        is_command = "." in name
        axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - height / 2),
                width,
                height,
                boxstyle="round,pad=0.04",
                facecolor="#eeecff" if is_command else PAPER,
                edgecolor=ACCENT if is_command else INK,
                lw=1.2,
            )
        )
        lines = name.count("\n") + 1
        axes.text(x, y + 0.5, name, ha="center", va="top", fontsize=9.5, weight="bold", color=INK)
        axes.text(x, y + 0.43 - 0.24 * lines, text, ha="center", va="top", fontsize=8.5, color=INK)
    for begin, end, text in HANDED:
        (x0, y0), (x1, y1) = middle[begin], middle[end]
        sideways = x0 != x1
        # Two that lie below one another and go both ways keep apart.
        aside = 0.0 if sideways or (end, begin, "") not in HANDED else 0.2 * (begin - end)
        step = 1 if x1 > x0 else -1
        there = (x1 - step * (width / 2 + 0.06), y1) if sideways else (
            x1 + aside, y1 + (height / 2 + 0.06) * (1 if y1 < y0 else -1)
        )  # fmt: skip
        here = (x0 + step * (width / 2 + 0.06), y0) if sideways else (
            x0 + aside, y0 - (height / 2 + 0.06) * (1 if y1 < y0 else -1)
        )  # fmt: skip
        arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.2}
        axes.annotate("", there, here, arrowprops=arrow)
        if text:
            place = ((here[0] + there[0]) / 2, y0 + 0.72)
            axes.text(*place, text, ha="center", va="bottom", fontsize=9, color=ACCENT)
    axes.set_xlim(-width / 2 - 0.2, 5 * across + width / 2 + 0.2)
    axes.set_ylim(-down - height / 2 - 0.1, 1.05)
    axes.axis("off")
    figure.savefig(path, facecolor=PAPER, bbox_inches="tight")
    pyplot.close(figure)


def main(_: list[str]) -> None:
    demo_dir, folder = pathlib.Path(_DEMO_DIR.value), pathlib.Path(_PICTURES_DIR.value)
    sheet = demo_dir / "dataset" / "contact_sheet.png"
    require(sheet.exists(), f"{demo_dir}: no finished demo; run `make demo` first")
    folder.mkdir(parents=True, exist_ok=True)

    save(Image.open(sheet), folder / "contact_sheet.png", width=900)
    draw_network(folder / "network.png")
    draw_beam_graph(folder / "beam_graph.png")
    draw_stream(folder / "stream_parts.png")
    live = demo_dir / "stream" / "live"
    made = ["network", "beam_graph", "stream_parts", "page", "report"]
    with open_browser() as browser:
        shoot_page(browser, demo_dir, folder / "page.png")
        shoot_report(browser, demo_dir, folder / "report.png")
        if (live / "state.json").exists():
            shoot_stream(browser, live, folder / "stream.png")
            made.append("stream")
    for name in made:
        save(Image.open(folder / f"{name}.png"), folder / f"{name}.png", width=1000)
    put_side_by_side([folder / "page.png", folder / "report.png"], folder / "overview.png")
    total = sum(path.stat().st_size for path in folder.glob("*.png"))
    require(total <= MAX_BYTES, f"{folder}: {total:,} bytes, more than {MAX_BYTES:,}")
    print(f"{total:,} bytes together")


if __name__ == "__main__":
    command.run(main)
