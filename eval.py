"""Sample from a run, evaluate it, ask it questions, answer AlpacaEval's or MT-Bench's, merge its adapter, publish it.

    python eval.py --config-path=<run folder or its config.yaml> ++mode=sample ++n_samples=512 ++samples_dir=samples/
    python eval.py --config-path=… ++mode=eval ++split=test
    python eval.py --config-path=… ++mode=alpacaeval
    python eval.py --config-path=… ++mode=mtbench ++datasets.mtbench.path=question.jsonl
    python eval.py --config-path=… ++mode=probe 'probes=["What is your name?"]'
    python eval.py --config-path=… ++mode=merge ++out=<folder>      the adapter and its base as one plain model
    python eval.py --config-path=… ++mode=push ++repo=<org>/<name>  to the hub, with its model card

Keys of the run's configuration can be overridden for this call: n_samples, samples_per_prompt, temperature, top_p,
max_new_tokens, split, model.eval_batch_size, datasets.<name>.path, saved_policy (LATEST, BEST, step-N; null is the
model before any training) and the rest. The policy is <run folder>/LATEST.
"""

from __future__ import annotations

import sys

MODES = "sample|eval|alpacaeval|mtbench|probe|merge|push"
USAGE = f"python eval.py --config-path=<run folder> ++mode={MODES} [++key=value …]"


def main(argv: list[str]) -> int:
    """Parse the command, load the run's configuration, do the mode; the exit code."""
    from prospect.config import eval_command

    def losses() -> dict[str, type]:
        from trainers import losses

        return losses()

    def job(config: object) -> int:
        from prospect.config.schema import Config
        from trainers.eval_run import evaluate_run

        assert isinstance(config, Config)
        return evaluate_run(config)

    if "-h" in argv or "--help" in argv or not argv:
        print(f"{__doc__}\n{USAGE}" if argv else f"usage: {USAGE}")
        return 0 if argv else 2
    return eval_command(argv, losses, job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
