"""Scripts that each answer one question about an operation's lowering: `python -m benchmarks.ops.convolution`."""
