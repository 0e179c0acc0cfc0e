"""Decides what becomes of announcements: pure functions of them, of what is there, and of the time.

Each track's announcements are settled in the order of their event time, whatever the order they
came in:

- those of one window are one row, what the newest says going first;
- a row is ready when its window has ended, its audio is there and, unless rows may be unlabelled,
  its listens are known; until then it waits, and takes up what is announced later, in whose window
  it then is;
- an announcement of a track that is written already is a duplicate, or, with listens where there
  were none, its label, or, with other listens that are newer, a correction; the newest of a window
  is in the generation of that window.

So the same announcements in the same windows give the same generations, and none is lost: each
becomes a row, part of one, a duplicate, a label, a correction, a dead letter, or waits.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from beam_pipelines.stream.announcements import Announcement, Unusable
from beam_pipelines.written_shard import RejectedTrack
from common.catalogue import UNKNOWN

TOO_LATE, NO_LISTENS = "too_late", "no_listens"

_DAY = 86_400


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """How announcements are gathered, in seconds.

    Attributes:
        window: of event time, from 1970 on.
        allowed_lateness: how long after its window an announcement may come, counted from the end
            of the newest window that is written.
        audio_wait: how long a row waits for its audio; then the job looks once more, and lists it.
        label_wait: how long an announcement waits for listens, where it does.
        unlabelled: whether a row without listens is written at once, instead.
        max_tracks: the most rows of a generation.
    """

    window: int
    allowed_lateness: int = 30 * _DAY
    audio_wait: int = 3_600
    label_wait: int = 30 * _DAY
    unlabelled: bool = False
    max_tracks: int = 10_000

    def start_of(self, announcement: Announcement) -> int:
        """Returns the start of the window that an announcement is in, in seconds since 1970."""
        return int(announcement.seconds // self.window) * self.window


@dataclasses.dataclass(frozen=True, kw_only=True)
class Waiting:
    """An announcement that is no record yet.

    Attributes:
        announcement: all that is known of the track.
        since: when it was first seen, in seconds since 1970.
        late: of a row that is to be written in a later generation of the same run, whether it is
            late; None of any other.
    """

    announcement: Announcement
    since: int
    late: bool | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Waiting":
        """Returns that of `dataclasses.asdict`; KeyError or TypeError if it is none."""
        return cls(
            announcement=Announcement.from_dict(values["announcement"]),
            since=int(values["since"]),
            late=values["late"],
        )


class Part(NamedTuple):
    """What goes into a generation: of one window, each sorted by track.

    Attributes:
        window: (start, end) in seconds since 1970.
        rows: to be written.
        looks: announcements with newer listens of tracks that are in parts or generations before.
    """

    window: tuple[int, int]
    rows: tuple[Waiting, ...]
    looks: tuple[Waiting, ...] = ()

    @property
    def entries(self) -> tuple[Waiting, ...]:
        return self.rows + self.looks


@dataclasses.dataclass(kw_only=True)
class Plan:
    """What a run is to do.

    Attributes:
        parts: a generation each, in this order.
        waiting: what waits after it.
        dead: announcements that can't be used.
        counts: `duplicates`, `merged`, `labels` and `corrections` among the announcements.
        news: whether anything changed that a next run must know, but for windows that are open.
    """

    parts: list[Part] = dataclasses.field(default_factory=list)
    waiting: list[Waiting] = dataclasses.field(default_factory=list)
    dead: list[RejectedTrack] = dataclasses.field(default_factory=list)
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    news: bool = False


def make(
    waiting: Sequence[Waiting],
    new: Sequence[Announcement],
    *,
    rules: Rules,
    listens: Mapping[int, int],
    newest_end: float,
    now: int,
    has_audio: Callable[[str], bool],
    announced_at: Callable[[], Mapping[int, float]] = dict,
) -> Plan:
    """Returns what becomes of announcements.

    Args:
        waiting: from the runs before.
        new: since then, in any order.
        rules: how they are gathered.
        listens: {track: listens} of all that is written, −1 of what has none.
        newest_end: of the windows that are written, in seconds since 1970.
        now: seconds since 1970.
        has_audio: whether there is a file of this path now; raises Unusable if it leads elsewhere.
        announced_at: {track: when its listens were announced, in seconds since 1970} of what is
            written, where known; asked for only if there may be a correction.
    """
    plan = Plan()
    entries = list(waiting)
    for announcement in new:
        if rules.start_of(announcement) + rules.window + rules.allowed_lateness < newest_end:
            after = "announced longer ago than --allowed_lateness"
            plan.dead.append(_dead(announcement, TOO_LATE, f"{announcement.announced_at}: {after}"))
        else:
            entries.append(Waiting(announcement=announcement, since=now))
    settler = _Settler(plan, rules, dict(listens), newest_end, now, has_audio, announced_at)
    entries.sort(key=lambda entry: (entry.announcement.track_id, entry.announcement.order))
    for _, group in itertools.groupby(entries, key=lambda entry: entry.announcement.track_id):
        settler.settle(list(group))
    plan.parts = parts_of(settler.rows, settler.looks.values(), rules)
    plan.waiting.sort(key=lambda entry: entry.announcement.track_id)
    plan.news |= bool(plan.parts or plan.dead)
    return plan


def parts_of(rows: Iterable[Waiting], looks: Iterable[Waiting], rules: Rules) -> list[Part]:
    """Returns the generations of rows and looks: one of each window, or more of too many rows."""
    by_window: dict[int, tuple[list[Waiting], list[Waiting]]] = {}
    for kind, entries in enumerate((rows, looks)):
        for entry in entries:
            start = rules.start_of(entry.announcement)
            by_window.setdefault(start, ([], []))[kind].append(entry)
    found = []
    for start, (mine, seen) in sorted(by_window.items()):
        for each in (mine, seen):
            each.sort(key=lambda entry: entry.announcement.track_id)
        for first in range(0, max(1, len(mine)), rules.max_tracks):
            some = tuple(mine[first : first + rules.max_tracks])
            found.append(Part((start, start + rules.window), some, () if first else tuple(seen)))
    return found


class _Settler:
    """Settles one track after the other.

    Attributes:
        rows: those that are ready.
        looks: {(track, start of a window): the newest look at its listens in that window}.
    """

    def __init__(
        self,
        plan: Plan,
        rules: Rules,
        listens: dict[int, int],
        newest_end: float,
        now: int,
        has_audio: Callable[[str], bool],
        announced_at: Callable[[], Mapping[int, float]],
    ):
        self.rows: list[Waiting] = []
        self.looks: dict[tuple[int, int], Waiting] = {}
        self._plan, self._rules, self._listens = plan, rules, listens
        self._newest_end, self._now, self._has_audio = newest_end, now, has_audio
        self._announced_at = announced_at
        self._taken: dict[int, float] = {}  # as `announced_at`, of this run

    def settle(self, entries: list[Waiting]) -> None:
        """Settles the announcements of one track, in the order of their event time."""
        rules, pending = self._rules, None
        for entry in entries:
            announcement = entry.announcement
            try:
                self._has_audio(announcement.path)
            except Unusable as error:
                self._plan.dead.append(_dead(announcement, error.reason, str(error)))
                continue
            if pending is not None:
                before = pending.announcement
                same_window = rules.start_of(before) == rules.start_of(announcement)
                if same_window or not self._is_ready(pending):
                    self._plan.counts["merged"] += 1
                    pending = Waiting(
                        announcement=before.updated_by(announcement), since=pending.since
                    )
                    continue
                self._take(pending)
                pending = None
            if announcement.track_id in self._listens:
                self._look_again(entry)
            else:
                pending = entry
        if pending is not None:
            self._end(pending)

    def _end(self, pending: Waiting) -> None:
        """Settles what is left of a track: it is ready, or waits on, or has waited for too long."""
        announcement, waited = pending.announcement, self._now - pending.since
        if self._is_ready(pending):
            self._take(pending)
            return
        is_open, lacks_listens = self._is_open(announcement), self._lacks_listens(announcement)
        if not is_open and lacks_listens and waited >= self._rules.label_wait:
            message = f"no listens within {self._rules.label_wait:,} s"
            self._plan.dead.append(_dead(announcement, NO_LISTENS, message))
        elif not is_open and not lacks_listens and waited >= self._rules.audio_wait:
            self._take(pending)  # the job looks once more, and lists what it does not find
        else:
            self._plan.waiting.append(pending)
            self._plan.news |= not is_open and pending.since == self._now

    def _is_ready(self, pending: Waiting) -> bool:
        announcement = pending.announcement
        if self._lacks_listens(announcement):
            return False
        return not self._is_open(announcement) and self._has_audio(announcement.path)

    def _lacks_listens(self, announcement: Announcement) -> bool:
        """Returns whether an announcement can't be a row before its listens are known."""
        return announcement.listens is None and not self._rules.unlabelled

    def _is_open(self, announcement: Announcement) -> bool:
        """Returns whether the window of an announcement has not ended yet."""
        return self._rules.start_of(announcement) + self._rules.window > self._now

    def _take(self, pending: Waiting) -> None:
        announcement, late = pending.announcement, pending.late
        if late is None:
            late = self._rules.start_of(announcement) + self._rules.window <= self._newest_end
        listens = announcement.listens
        self._listens[announcement.track_id] = UNKNOWN if listens is None else listens
        self._taken[announcement.track_id] = announcement.seconds
        self.rows.append(dataclasses.replace(pending, late=late))

    def _look_again(self, entry: Waiting) -> None:
        """Settles an announcement of a track that is written."""
        announcement = entry.announcement
        track, listens = announcement.track_id, announcement.listens
        if listens is not None and self._is_open(announcement):
            self._plan.waiting.append(entry)  # another of its window may be newer
            return
        # So that sources that do not keep it for ever may drop it.
        self._plan.news |= not self._is_open(announcement)
        known = self._listens[track]
        if listens is None or listens == known or not self._is_newer(announcement, listens):
            self._plan.counts["duplicates"] += 1
            return
        place = (track, self._rules.start_of(announcement))
        if place in self.looks:
            self._plan.counts["merged"] += 1
        else:
            self._plan.counts["labels" if known == UNKNOWN else "corrections"] += 1
        self.looks[place] = entry
        self._listens[track], self._taken[track] = listens, announcement.seconds

    def _is_newer(self, announcement: Announcement, listens: int) -> bool:
        track = announcement.track_id
        if self._listens[track] == UNKNOWN:
            return True  # it has been looked at by nobody yet
        if (seconds := self._taken.get(track)) is None:
            seconds = self._announced_at().get(track, 0.0)
        return (announcement.seconds, listens) > (seconds, self._listens[track])


def _dead(announcement: Announcement, reason: str, message: str) -> RejectedTrack:
    return RejectedTrack(
        track_id=announcement.track_id, path=announcement.path, reason=reason, message=message
    )
