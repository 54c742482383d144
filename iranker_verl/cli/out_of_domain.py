"""``iranker evaluate-out-of-domain``: compare a model before and after it learned to rank on other tasks, by lm-eval."""

from __future__ import annotations

import sys
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate_out_of_domain(
    base: Annotated[Path, typer.Option(help="Hugging Face model folder before training")],
    trained: Annotated[Path, typer.Option(help="the one after, e.g. runs/NAME/model")],
    out: Annotated[Path, typer.Option(help="folder for out_of_domain.json; what is completed there is reused")],
    tasks: Annotated[
        str | None,
        typer.Option(
            help="of gsm8k, ifeval, mmlu, mbpp, humaneval, openbookqa, hellaswag, mathqa, separated by commas [default: all]"
        ),
    ] = None,
    backend: Annotated[str, typer.Option(help="vllm or hf (transformers)")] = "vllm",
    chat_template: Annotated[
        bool, typer.Option("--chat-template/--no-chat-template", help="put questions into the models' chat template")
    ] = False,
    data_folder: Annotated[
        Path | None,
        typer.Option(help="the tasks' data (docs/out_of_domain.md); nothing is fetched then [default: the Hub]"),
    ] = None,
    allow_code_execution: Annotated[
        bool, typer.Option("--allow-code-execution", help="run the programs that models write (mbpp, humaneval)")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first questions of each task, for a try")] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="tokens of prompt and answer [default: the model's longest]")
    ] = None,
    seed: Annotated[int, typer.Option(help="draws the examples shown before a question")] = 1,
) -> None:
    """Compare the base and the trained model on the paper's out-of-domain tasks, by lm-eval, with paired standard errors."""
    from iranker_verl.evaluation.out_of_domain.tasks import choose_tasks
    from iranker_verl.job.out_of_domain import evaluate_out_of_domain as evaluate

    print(
        evaluate(
            base,
            trained,
            choose_tasks(tasks, allow_code_execution),
            out,
            backend=backend,
            chat_template=chat_template,
            data_folder=data_folder,
            allow_code_execution=allow_code_execution,
            limit=limit,
            max_model_len=max_model_len,
            seed=seed,
        )
    )


@wraps(evaluate_out_of_domain)
def evaluate_generic(**options: Any) -> None:
    """Run :func:`evaluate_out_of_domain` under the verb's former name."""
    print("`iranker evaluate-generic` is `iranker evaluate-out-of-domain` now", file=sys.stderr)
    evaluate_out_of_domain(**options)
