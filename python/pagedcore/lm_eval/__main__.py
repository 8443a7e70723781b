"""lm-eval's command, which knows the model ``pagedcore`` since its package was imported."""

from lm_eval.__main__ import cli_evaluate  # type: ignore[import-not-found, unused-ignore]

cli_evaluate()
