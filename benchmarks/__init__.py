"""Benchmarks: flaim beside timm and Keras, on the same machine in one run."""
