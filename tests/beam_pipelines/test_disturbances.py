"""Whatever is done to a dataset's folder, in whatever order, the job ends in the same bytes.

Hypothesis draws what is done: runs, kills, other configs, damage. Two things always hold: what
`dataset_info.json` describes is whole, unless somebody has damaged it since; and a run that ends
well ends in the bytes of one that nobody disturbed. make soak tries a hundred such stories.
"""

import json
import os
import pathlib
import shutil
import tempfile

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from common import dataset_reader
from examples import miniature_library
from tests.support import forked_job
from tests.support.commands import files_of

pytestmark = pytest.mark.integration

STORIES = int(os.environ.get("SOAK_STORIES", "2"))
STEPS = int(os.environ.get("SOAK_STORY_STEPS", "6"))
CONFIGS = {"one": "a", "other": "b"}  # their salts, which decide on splits and order


@pytest.fixture(scope="module")
def small_library(tmp_path_factory):
    return miniature_library.make_library(tmp_path_factory.mktemp("small"), num_clips=4, seed=2)


def arguments(library, config: str, out: pathlib.Path) -> list[str]:
    return [
        "--config=configs/dataset_artist.py",
        f"--config.salt={CONFIGS[config]}",
        "--config.split_sizes=(0.5,0.25,0.25)",
        f"--tracks_csv={library.tracks_csv}",
        f"--audio_dir={library.audio_dir}",
        f"--output_dir={out}",
        "--max_reject_fraction=0.9",
        "--direct_running_mode=in_memory",
        "--direct_num_workers=1",
    ]


@pytest.fixture(scope="module")
def undisturbed(small_library, tmp_path_factory):
    """{config: the files of a run that nobody disturbs}."""
    found = {}
    for config in CONFIGS:
        folder = tmp_path_factory.mktemp(config)
        ended = forked_job.run(arguments(small_library, config, folder / "out"), folder)
        assert ended.code == 0, ended
        found[config] = files_of(folder / "out")
    assert found["one"] != found["other"]
    return found


def owner(out: pathlib.Path) -> str | None:
    """Whose dataset a folder says that it has, begun or finished; None if it says nothing."""
    for name in ("dataset_info.json", ".plan.json"):
        if (out / name).exists():
            salt = json.loads((out / name).read_text())["config"]["salt"]
            (found,) = (config for config, of_config in CONFIGS.items() if of_config == salt)
            return found
    return None


def story(library, undisturbed) -> type[RuleBasedStateMachine]:
    """What may happen to a folder."""
    configs = st.sampled_from(sorted(CONFIGS))

    class Story(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.folder = pathlib.Path(tempfile.mkdtemp())
            self.out = self.folder / "out"
            self.out.mkdir()
            self.damaged = False  # since the last run that ended well
            self.flipped = False  # in a way that no file's size shows

        def teardown(self):
            shutil.rmtree(self.folder)

        def run(self, config, *flags, kill_after=None):
            return forked_job.run(
                [*arguments(library, config, self.out), *flags], self.folder, kill_after=kill_after
            )

        def shards(self):
            return sorted(self.out.glob("*.tfrecord-*"))

        def ended(self, ended, config):
            assert ended.code == 0, ended
            assert ended.errors == ""
            assert files_of(self.out) == undisturbed[config]
            self.damaged = self.flipped = False

        def refused(self, ended, before, *words):
            (line,) = ended.errors.splitlines()
            assert ended.code == 1 and any(word in line for word in words), ended
            # The lock of a killed run goes with the next run, whatever comes of that.
            left = {".lock": before[".lock"]} if ".lock" in before else {}
            assert files_of(self.out) | left == before

        @rule(config=configs)
        def run_job(self, config):
            before, there = files_of(self.out), owner(self.out)
            if self.flipped:
                return  # a plain run looks at sizes alone, as one of 100 TB has to
            ended = self.run(config)
            if there is None and self.shards() and ended.code:
                self.refused(ended, before, "shards of unknown origin")
            elif there not in (None, config):
                self.refused(ended, before, "holds another dataset")
            else:
                self.ended(ended, config)

        @rule(config=configs, seconds=st.floats(0.0, 3.0))
        def killed(self, config, seconds):
            self.run(config, kill_after=seconds)

        @rule(config=configs, seconds=st.floats(0.0, 3.0))
        def killed_while_it_overwrites(self, config, seconds):
            self.run(config, "--overwrite", kill_after=seconds)

        @rule(seconds=st.floats(0.0, 3.0))
        def killed_while_it_tries_again(self, seconds):
            self.run(owner(self.out) or "one", "--retry_rejected", kill_after=seconds)

        @rule(config=configs)
        def overwrite(self, config):
            self.ended(self.run(config, "--overwrite"), config)

        @rule(config=configs)
        def retry_rejected(self, config):
            before, there = files_of(self.out), owner(self.out)
            ended = self.run(config, "--retry_rejected")
            if there is None:
                self.refused(ended, before, "no dataset whose rejected clips")
            elif there != config:
                self.refused(ended, before, "holds another dataset")
            else:
                self.ended(ended, config)

        # What there is to damage depends on when a run was killed. So it decides what a rule does,
        # and not, as a precondition, which rule comes: Hypothesis wants the same choices each time.

        @rule(number=st.integers(0, 9), part=st.floats(0, 0.99))
        def cut_a_shard(self, number, part):
            if not (shards := self.shards()):
                return
            shard = shards[number % len(shards)]
            os.truncate(shard, int(part * shard.stat().st_size))
            self.damaged = True

        @rule(number=st.integers(0, 9), place=st.floats(0, 0.99))
        def change_a_byte_of_a_shard(self, number, place):
            if not ((self.out / "dataset_info.json").exists() and (shards := self.shards())):
                return
            shard = shards[number % len(shards)]
            data = bytearray(shard.read_bytes())
            if data:
                data[int(place * len(data))] ^= 0xFF
                shard.write_bytes(data)
                self.damaged = self.flipped = True

        @rule(number=st.integers(0, 99))
        def delete_a_file(self, number):
            if not (names := sorted(self.out.iterdir())):
                return
            names[number % len(names)].unlink()
            self.damaged = True

        @invariant()
        def what_is_described_is_whole(self):
            if (self.out / "dataset_info.json").exists():
                info = dataset_reader.load_dataset_info(str(self.out), check_shards_of=())
                wrong = dataset_reader.damage(info, str(self.out))
                assert self.damaged or not wrong, wrong

    return Story


def test_any_story_ends_well(small_library, undisturbed):
    settings = hypothesis.settings(
        max_examples=STORIES,
        stateful_step_count=STEPS,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    run_state_machine_as_test(lambda: story(small_library, undisturbed)(), settings=settings)
