r"""The poster's best network: six convolutions on RGB spectrograms (test accuracy 61 %).

python -m trainer.train --config=configs/six_conv_rgb.py --dataset_dir=dataset --model_dir=model
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()

    # How many of the poster's six blocks, and whether the picture goes through a colormap.
    config.network = ConfigDict(dict(convolutions=6, color="rgb"))
    # The poster does not say how its weights began, nor whether its pictures were standardised.
    # With these values, Keras' defaults, untrained logits hardly differ between clips, and on real
    # music six layers answer the most frequent class for some 30 epochs; with `he` and True (by the
    # dataset's statistics) for 12. After 100 epochs neither is ahead, and the latter's first steps
    # are wilder, so they are left as they are.
    config.network.initializer = "glorot"
    config.network.standardize = False

    # The poster's.
    config.learning_rate = 5e-4  # Adam's
    config.batch_size = 16  # of all devices together
    config.dropout = 0.4  # before the last layer
    config.epochs = 100

    # What the poster does not use. The rate may rise for some epochs (`warmup_epochs`, parts of
    # one too) and then stay (`constant`) or fall to 0 at the last epoch (`cosine`).
    config.learning_rate_schedule = "constant"
    config.warmup_epochs = 0.0
    # Ends the training after so many epochs without a better validation accuracy; 0 never does.
    config.patience = 0
    # The gradients of a step are scaled down to this norm; 0 leaves them as they are.
    config.clip_norm = 0.0
    # `balanced` weighs an example by how rare its class is, `none` all alike.
    config.class_weights = "none"

    # SpecAugment: at most so many mel bands and columns of each training picture are blanked.
    config.freq_mask = 0
    config.time_mask = 0

    # More that the poster does not use, see `short_chunk.py` for values that help. Of the weights:
    # a decay as AdamW's, and an average (an exponential one, of this decay) that answers for them.
    config.weight_decay = 0.0
    config.weight_average = 0.0
    # The epoch that is kept: `best` by validation accuracy, or the `last`.
    config.keep = "best"
    # Of the loss: classes smoothed by so much, where it is a picture that tells them, and the
    # weights of what is added to the cross-entropy: the distance of the classes in their order; the
    # genre, and ln(1 + listens), for networks that have heads for these.
    config.label_smoothing = 0.0
    config.ordinal_loss = 0.0
    config.genre_loss = 0.0
    config.listens_loss = 0.0
    # Of the examples: pictures begin anywhere, of which so many columns are left (0: all), with a
    # level of this deviation added, mixed in pairs (the beta distribution's parameter; 0: none);
    # and inputs beside the picture are left out so often, by name and `others`.
    config.time_roll = False
    config.time_crop = 0
    config.level_shift = 0.0
    config.mixup = 0.0
    config.input_dropout = ConfigDict()

    # Of a training that begins with the weights of another one (--init_from): by how much these are
    # multiplied, and what of new weights is added. Ash and Adams (2020) shrink to 0.4 or so, since
    # a plain warm start, which this is, often ends worse than new weights on the same data.
    config.shrink_perturb = (1.0, 0.0)

    # How trainer.follow trains on new generations of a dataset: each update for so many epochs over
    # their clips and old ones, which are this share of all, at this learning rate (0: the one
    # above). The gate asks about the test clips of the newest so many generations (0: of all) and
    # has these margins. Drift alarms above these: population stability index, Jensen-Shannon
    # divergence in nats, and how far the accuracy falls.
    config.follow = ConfigDict(dict(replay=0.5, epochs=3, learning_rate=0.0, test_generations=0))
    config.follow.margin_log_loss = 0.02
    config.follow.margin_macro_f1 = 0.03
    config.follow.drift_psi = 0.25
    config.follow.drift_js = 0.05
    config.follow.drift_accuracy = 0.1

    # `float32`, or halves where they do no harm: `mixed_bfloat16` (devices that have it) or
    # `mixed_float16` (GPUs; the loss is scaled so that small gradients don't vanish).
    config.precision = "float32"

    # Records that a shuffle holds; more than a dataset has is as good as a perfect shuffle.
    config.shuffle_buffer = 4_096
    # Steps in one call of the compiled function.
    config.steps_per_call = 8
    config.seed = 0
    # The same bits in every run, at some cost in speed.
    config.deterministic = False
    # A checkpoint is written at the end of each epoch, and within it after so many seconds.
    config.checkpoint_seconds = 300.0
    return config
