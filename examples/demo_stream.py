r"""The stream, live: songs are announced, a dataset grows, a model follows it and is released.

python -m examples.demo_stream --output_dir=demo [--port=8081] [--nostay]

Half a minute of announcements at a time become a generation (`stream_dataset`), on which the model
is tested and then trained (`trainer.follow`); what the gate releases is taken up by the server
(`serving.app`). These are processes, as a person would start them, that end together. This one
announces the songs of the miniature library, asks the server about them, and shows on a page and in
the terminal what the files of the others say. The library and the first model are kept in
`demo/stream/first`; each run shows the rest anew, in `demo/stream/live`.
"""

import contextlib
import dataclasses
import functools
import http.server
import json
import math
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from common import catalogue, command, export_folder, generations, tables
from common.errors import UserFacingError
from common.inputs import Inputs
from common.interruption import kill_descendants
from common.parent_death import end_with_parent
from examples import demo_stream_view as view
from examples.steps import Steps, digest, run, skip, source_of, step

PAGE = pathlib.Path(__file__).with_name("demo_stream.html")

_HISTORY = 92  # songs that the first model is trained on
_GENERATIONS = 4
_WINDOW = 30  # seconds of announcements that become a generation
# Begins with the next window where less than this is left of the present one.
_LEAST_OF_A_WINDOW = 8.0
# All are announced by then, so that none is late.
_SHARE_OF_A_WINDOW = 0.9
_LONG_AGO = "2020-01-01T00:00:00Z"

_STREAM_FLAGS = [
    "--config=configs/dataset_artist.py",
    # By track, since the gate wants 30 artists in the test split and the library has 40 in all.
    "--config.split_by=track",
    "--config.split_sizes=(0.45,0.1,0.45)",
    f"--window={_WINDOW}s",
    "--audio_wait=0s",
]
# To start a process for each core takes longer than the songs of a window do.
_SMALL_JOBS = ["--direct_running_mode=in_memory", "--direct_num_workers=1"]
_FOLLOW_FLAGS = [
    "--config=configs/six_conv_rgb.py",
    "--config.network.initializer=he",
    "--config.network.standardize",
    "--config.epochs=3",
    "--config.follow.epochs=5",
    "--config.follow.replay=0.7",
    # So few clips can't show that a model is not worse by as little as a real gate asks.
    "--config.follow.margin_log_loss=0.1",
    "--config.follow.margin_macro_f1=0.1",
]

_TICK = 0.5
_SECONDS_TO_STOP = 4.0
_SECONDS_TO_ANSWER = 10.0


# ---- announcements


@dataclasses.dataclass(frozen=True)
class Song:
    """A track of the library as it is announced."""

    track_id: int
    path: str
    listens: int
    artist_id: int
    artist: str
    genre: str
    title: str

    def announced(self, at: str) -> str:
        """Returns the line that announces it."""
        return json.dumps(dataclasses.asdict(self) | {"announced_at": at}) + "\n"

    def __str__(self) -> str:
        return f"“{self.title}” by {self.artist} ({self.genre})"


def songs_of(tracks_csv: pathlib.Path) -> list[Song]:
    """Returns the songs of a library in the order in which they are announced, the same always."""
    wanted = Inputs(texts=("title", "name"))
    with tracks_csv.open("rb") as file:
        tracks = list(
            catalogue.read_tracks(file, name=str(tracks_csv), subset="small", inputs=wanted)
        )
    songs = [
        Song(
            track_id=track.track_id,
            path=track.path,
            listens=track.listens,
            artist_id=track.artist_id,
            artist=track.texts[1],
            genre=track.genre,
            title=track.texts[0],
        )
        for track in tracks
    ]
    return [songs[place] for place in np.random.default_rng(0).permutation(len(songs))]


def due_times(count: int, *, begin: float) -> list[float]:
    """Returns when each of `count` songs is announced, rising, in seconds since 1970.

    So many go into each window that all are the same, whenever the demo begins: what the
    generations hold then does not depend on the clock.
    """
    size = -(-count // _GENERATIONS)
    window = math.floor(begin / _WINDOW)
    if (window + _SHARE_OF_A_WINDOW) * _WINDOW - begin < _LEAST_OF_A_WINDOW:
        window += 1
    times = []
    for place in range(count):
        number, within = divmod(place, size)
        start = max(begin, (window + number) * _WINDOW)
        end = (window + number + _SHARE_OF_A_WINDOW) * _WINDOW
        times.append(start + (end - start) * within / size)
    return times


# ---- processes


class Process:
    """A command of the project that runs beside this one, with its output in a file."""

    def __init__(self, module: str, *arguments: str, log: pathlib.Path):
        self.module, self._log = module, log
        print(f"$ python -m {shlex.join([module, *arguments])}", flush=True)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C of the terminal comes to this process alone
                preexec_fn=end_with_parent,
            )

    def url(self) -> str:
        """Returns where the server listens, as soon as it says so."""
        began = spoke = time.monotonic()
        while " at http" not in self._output():
            self.check()
            time.sleep(_TICK)
            if time.monotonic() - spoke > view.SILENCE:
                spoke = time.monotonic()
                print(f"  … {spoke - began:.0f} s, the server starts", flush=True)
        return self._output().partition(" at ")[2].split()[0]

    def check(self) -> None:
        """Raises UserFacingError if it has ended."""
        code = self._process.poll()
        if code is not None:
            last = (self._output().strip().splitlines() or ["it printed nothing"])[-1]
            raise UserFacingError(
                f"python -m {self.module} has ended (exit code {code}): {last} (see {self._log})"
            )

    def ask_to_stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, seconds))

    def _output(self) -> str:
        return self._log.read_text(errors="replace")


def stop(processes: Sequence[Process]) -> None:
    """Ends processes and all that they started: what they can't finish at once, they can resume."""
    for process in processes:
        process.ask_to_stop()
    end = time.monotonic() + _SECONDS_TO_STOP
    for process in processes:
        process.wait(end - time.monotonic())
    kill_descendants()


def serve_folder(folder: pathlib.Path, port: int) -> http.server.ThreadingHTTPServer:
    """Serves a folder to this machine until `shutdown`; UserFacingError if it can't."""
    try:
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", port), functools.partial(_Files, directory=str(folder))
        )
    except (OSError, OverflowError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise UserFacingError(
            f"--port={port}: can't listen there ({problem}); take another, or 0 for any"
        ) from None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Files(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


# ---- the server


@dataclasses.dataclass(frozen=True)
class App:
    """The server, asked as any client asks it."""

    url: str
    audio_dir: pathlib.Path

    def version(self) -> str:
        """Returns the version that answers; empty where none does at the moment."""
        try:
            return str(self._ask("readyz")["version"])
        except OSError:
            return ""

    def answer(self, song: Song) -> dict[str, Any] | None:
        """Returns what the model says of a song; None where it says nothing of it."""
        try:
            return self._ask("v1/predict", (self.audio_dir / song.path).read_bytes())
        except OSError:  # there is no audio, or the server refuses it or is too busy
            return None

    def _ask(self, path: str, data: bytes | None = None) -> dict[str, Any]:
        headers = {} if data is None else {"Content-Type": "audio/mpeg"}
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=_SECONDS_TO_ANSWER) as response:
            found: dict[str, Any] = json.load(response)
            return found


# ---- the demo


def make_first(
    steps: Steps, first: pathlib.Path, *, songs: Sequence[Song], audio_dir: pathlib.Path
) -> None:
    """Makes the dataset and the model that all begins with, unless they are there."""
    lines = "".join(song.announced(_LONG_AGO) for song in songs)
    made_from = digest(
        *_STREAM_FLAGS,
        *_FOLLOW_FLAGS,
        lines,
        source_of("common", "beam_pipelines", "trainer", "serving", "configs"),
    )
    if steps.finished("first", made_from):
        return skip(first)
    steps.begin("first", made_from, first)
    (first / "announced").mkdir(parents=True, exist_ok=True)
    (first / "announced" / "history.jsonl").write_text(lines, encoding="utf-8")
    run(*stream_command(first, audio_dir), "--once")
    run(*follow_command(first), "--once")
    steps.finish("first", made_from)


def stream_command(folder: pathlib.Path, audio_dir: pathlib.Path) -> list[str]:
    return [
        "beam_pipelines.stream_dataset",
        *_STREAM_FLAGS,
        f"--source={folder / 'announced'}",
        f"--audio_dir={audio_dir}",
        f"--output_dir={folder / 'dataset'}",
    ]


def follow_command(folder: pathlib.Path) -> list[str]:
    return [
        "trainer.follow",
        *_FOLLOW_FLAGS,
        f"--dataset_dir={folder / 'dataset'}",
        f"--model_dir={folder / 'following'}",
        f"--export_dir={folder / 'export'}",
    ]


def show_live(
    live: pathlib.Path,
    first: pathlib.Path,
    *,
    songs: Sequence[Song],
    audio_dir: pathlib.Path,
    port: int,
    stay: bool,
) -> None:
    """Starts the processes, announces the songs, shows what happens, and ends all of it."""
    shutil.rmtree(live, ignore_errors=True)
    for name in ("dataset", "following", "export"):
        shutil.copytree(first / name, live / name)
    for name in ("announced", "logs"):
        (live / name).mkdir()
    shutil.copy(PAGE, live / "index.html")
    (live / view.STATE_FILE).write_text("{}")
    page = serve_folder(live, port)
    url = f"http://127.0.0.1:{page.server_address[1]}/"
    commands = (
        ["serving.app", f"--export_dir={live / 'export'}", "--port=0", "--poll_seconds=1"],
        [*stream_command(live, audio_dir), "--poll=2s", *_SMALL_JOBS],
        [*follow_command(live), "--poll=1"],
    )
    processes: list[Process] = []
    try:
        for module, *arguments in commands:
            log = live / "logs" / f"{module.rpartition('.')[2]}.log"
            processes.append(Process(module, *arguments, log=log))
        print(f"\nopen {url} in a browser\n", flush=True)
        app = App(processes[0].url(), audio_dir)
        seconds = announce(live, songs, app=app, processes=processes)
        step(f"{_GENERATIONS} generations in {tables.duration(seconds)}")
        print(view.table(live))
        print(f"\n  what happened   {url}\n  the model       {app.url}", flush=True)
        if stay:
            print("\nBoth stay until Ctrl-C.", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(_TICK)
                    for process in processes:
                        process.check()
    finally:
        stop(processes)
        page.shutdown()


def announce(
    live: pathlib.Path, songs: Sequence[Song], *, app: App, processes: Sequence[Process]
) -> float:
    """Announces the songs and shows what becomes of them, until the last model has been judged.

    Returns:
        how many seconds that took.
    """
    shown = view.View(live, app=app.url, songs=len(songs))
    times = due_times(len(songs), begin=time.time())
    announced = asked = 0
    asked_at, version = -math.inf, ""
    while True:
        due = sum(at <= time.time() for at in times)
        if due > announced:
            now = generations.text_of(int(time.time()))
            with (live / "announced" / "today.jsonl").open("a", encoding="utf-8") as file:
                file.writelines(song.announced(now) for song in songs[announced:due])
            announced = due
        pause = time.monotonic() - asked_at
        if announced > asked and (pause > view.SILENCE or announced == len(songs)):
            asked, asked_at = announced, time.monotonic()
            newest = songs[announced - 1]
            shown.announced(
                announced, newest=str(newest), listens=newest.listens, answer=app.answer(newest)
            )
        for process in processes:
            process.check()
        version = app.version() or version
        shown.look(version)
        newest_version = str(export_folder.newest_version(str(live / "export")))
        if view.has_followed(live, announced=_HISTORY + len(songs)) and version == newest_version:
            return shown.seconds()
        time.sleep(_TICK)


def show(output_dir: pathlib.Path, *, port: int, stay: bool) -> None:
    """Makes what there is to begin with, and shows the stream."""
    stream_dir, library = output_dir / "stream", output_dir / "library"
    first, live = stream_dir / "first", stream_dir / "live"
    step("1 of 3: a miniature FMA library")
    run("examples.miniature_library", f"--output_dir={library}")
    audio_dir = library / "fma_small"
    songs = songs_of(library / "fma_metadata" / "tracks.csv")
    past, future = songs[:_HISTORY], songs[_HISTORY:]
    step(f"2 of 3: a dataset of {len(past)} songs, and a first model")
    make_first(Steps(stream_dir / "steps.json"), first, songs=past, audio_dir=audio_dir)
    step(f"3 of 3: {len(future)} songs are announced")
    show_live(live, first, songs=future, audio_dir=audio_dir, port=port, stay=stay)


# ---- flags

# Defined in the command only, since other modules that are imported have an --output_dir as well.
if __name__ == "__main__":
    OUTPUT_DIR = flags.DEFINE_string("output_dir", "demo", "Where everything goes.")
    PORT = flags.DEFINE_integer("port", 8081, "Of the page; 0 for any.", lower_bound=0)
    STAY = flags.DEFINE_bool("stay", True, "Keep page and server at the end, until Ctrl-C.")

    command.run(lambda _: show(pathlib.Path(OUTPUT_DIR.value), port=PORT.value, stay=STAY.value))
