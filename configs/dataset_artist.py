r"""The honest protocol: as the poster's, but no artist is heard both in training and in the test.

python -m beam_pipelines.build_dataset --config=configs/dataset_artist.py \
    --tracks_csv=fma_metadata/tracks.csv --audio_dir=fma_small --output_dir=dataset
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()

    # FMA's subsets, each containing the ones before it: small, medium, large, full.
    config.subset = "small"

    # What the thresholds cut: "listens", as on the poster; "listens_per_year" of a track's age, up
    # to the newest date_created of the subset or a plain catalogue's column counted_at;
    # "rank_among_contemporaries", 0 to 1, among the subset's tracks of the same quarter of a year.
    config.popularity = "listens"
    # Classes of listens: below 1,000; up to 3,499; from 3,500 on. The poster does not print its
    # thresholds; these come closest among round numbers to its class shares.
    config.class_names = ("low", "medium", "high")
    config.thresholds = (1_000, 3_500)
    # Or, with thresholds = (), such quantiles of the subset's listens as (0.168, 0.635).
    config.quantiles = ()

    # "artist": all tracks of an artist go to the same split; "track": the poster's, which leaks;
    # "official": the column (set, split) of FMA, which is by artist too; "date": the oldest tracks
    # are for training and the newest for the test, whole days each.
    config.split_by = "artist"
    # Shares of train, validation and test; the official split has its own.
    config.split_sizes = (0.8, 0.1, 0.1)
    # Another salt gives another split and another order of the records.
    config.salt = "fma"

    # Windows of each track, evenly spaced; one is the middle. A track that is not long enough for
    # so many side by side gives fewer.
    config.clips_per_track = 1
    # A track shorter than this, in seconds, or whose peak lies below this level is rejected.
    config.min_seconds = 3.0
    config.silence_dbfs = -80.0

    # What a record carries beside the picture: columns of the catalogue or of --features_csv, the
    # artist's other tracks in the training split and those of them on the same album, what is heard
    # of harmony and rhythm.
    config.inputs = ConfigDict(
        dict(
            categories=(),  # such as ("genre", "location", "license")
            numbers=(),  # such as ("date_created", "duration", "acousticness")
            texts=(),  # such as ("title", "tags")
            artist_history=False,
            album_history=False,
            chroma=False,
            tempo=False,
        )
    )

    config.spectrogram = ConfigDict(
        dict(
            sample_rate=22_050,  # Hz
            num_samples=660_920,  # the central 29.97 s
            fft_size=2_048,
            hop=520,
            num_mels=102,  # the picture's height
            frames_per_column=8,  # 1,272 frames make its width of 159
            floor_db=80.0,
        )
    )
    return config
