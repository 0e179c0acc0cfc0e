"""Runs trainer.train on two logical CPUs, which no flag of it makes."""

import runpy

import tensorflow as tf

if __name__ == "__main__":
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    runpy.run_module("trainer.train", run_name="__main__", alter_sys=True)
