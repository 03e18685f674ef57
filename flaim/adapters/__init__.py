"""One thin adapter a framework: it holds the leaves, calls the pure function, and puts updates back.

`linen`, `nnx`, `eqx` and `haiku` each have `get_model`, `wrap` (from a framework-free model and its variables),
`to_variables` (the canonical variables back out) and `layers` (each kernel as a module of that framework).
"""
