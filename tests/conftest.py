"""Run-time checks of every jaxtyping annotation, before anything of flaim is imported."""

from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401 -- the hook names it and expects it to be there

install_import_hook(["flaim", "flaim_core"], "tests.typechecker.check")
