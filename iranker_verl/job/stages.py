"""What each stage of a job does. Each runs in a process of its own: ``python -m iranker_verl.job.stages STAGE RUN_DIR``.

A stage reads ``RUN_DIR/config.yaml`` and the files of the stages before it, and leaves its result whole or not at all.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from iranker_verl.console import DIED, say
from iranker_verl.errors import described, user_error_of
from iranker_verl.files import replacing_folder, write_json
from iranker_verl.job.export import answers_follow_a_prefix, base_path, export
from iranker_verl.job.starts import read_config
from iranker_verl.provenance import file_digest, versions
from iranker_verl.ranking import templates
from iranker_verl.ranking.templates import Message
from iranker_verl.training.checkpoints import last_step
from iranker_verl.training.credit import LABEL_ESTIMATORS, SUPERVISED

if TYPE_CHECKING:
    from iranker_verl.inference.engine import ChatTokenizer

# The embedded world is prepared with short histories and small pools, so that a tiny model learns from it in minutes.
WORLD_HISTORY = 5
WORLD_CANDIDATES = 6
WORLD_TEST_FRACTION = 0.03
# Prompts that an engine answers at once in an evaluation; vLLM holds back what its cache has no room for.
CPU_SEQUENCES, GPU_SEQUENCES = 64, 256
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


def prepare(config: DictConfig, run: Path) -> None:
    """Raw files (or the embedded world's, which are written first) to ``RUN_DIR/data``.

    With ``iranker.data.test_tasks``, these go to ``RUN_DIR/unseen``; its test side is that of a run on all datasets.
    """
    from data_prep.options import Options
    from data_prep.prepare import prepare as prepare_data
    from data_prep.world import WorldSize, write_world

    given = _given(config.iranker.data.options)
    raw = config.iranker.data.raw
    if raw is None:
        raw = run / "raw"
        if not raw.exists():
            say("writing the embedded world's raw files")
            with replacing_folder(raw) as part:
                write_world(part, config.iranker.seed, WorldSize(**_given(config.iranker.data.world)))
        given = {"history": WORLD_HISTORY, "candidates": WORLD_CANDIDATES, "test_fraction": WORLD_TEST_FRACTION} | given
    wanted = {"data": list(config.iranker.data.tasks or [])}
    if unseen := list(config.iranker.data.test_tasks or []):
        wanted["unseen"] = unseen
    for folder, tasks in wanted.items():
        prepare_data(
            Path(raw),
            run / folder,
            templates.load(config.iranker.template),
            Options(**given, seed=config.iranker.seed),
            tasks or None,
            say,
        )
    prove_unseen(config, run)


def _given(options: DictConfig) -> dict[str, Any]:
    """Return the options that are set; null stands for the default."""
    return {str(name): value for name, value in options.items() if value is not None}


def test_folder(config: DictConfig, run: Path) -> Path:
    """The prepared folder whose test side a run is evaluated on."""
    return run / ("unseen" if config.iranker.data.test_tasks else "data")


def prove_unseen(config: DictConfig, run: Path) -> None:
    """In a zero-shot run, prove from the files that training holds nothing of what is tested on: ``RUN_DIR/unseen.json``."""
    if not config.iranker.data.test_tasks:
        return
    from data_prep.checks.unseen import check_unseen

    files = config.data.train_files  # what verl trains on, wherever that is
    found = check_unseen(
        [Path(f) for f in ([files] if isinstance(files, str) else files)], run / "unseen" / "test.parquet"
    )
    write_json(run / "unseen.json", asdict(found))


def prompt_counter(tokenizer: ChatTokenizer, estimator: str) -> Callable[[list[Message]], int]:
    """Return a function that counts the tokens of a rollout's prompt, which may end with what all labels begin with."""
    prefix = len(tokenizer.labels(2).prefix) if estimator in LABEL_ESTIMATORS else 0
    return lambda messages: len(tokenizer.encode(messages)) + prefix


def count_prompt(model: Path, estimator: str, messages: list[Message]) -> int:
    """Return the tokens of a rollout's prompt; it can be sent to another process, which then reads the tokenizer once."""
    return _prompt_counter(model, estimator)(messages)


def prompt_counter_key(model: Path, estimator: str) -> dict[str, Any]:
    """Return what :func:`count_prompt` depends on: every file of the model but its weights, versions, and the answers' form."""
    files = sorted(path for path in model.rglob("*") if path.is_file() and path.suffix not in WEIGHTS)
    return {
        "files": {path.relative_to(model).as_posix(): file_digest(path) for path in files},
        "versions": versions() | {"tokenizers": metadata.version("tokenizers")},
        "labels": estimator in LABEL_ESTIMATORS,
    }


@lru_cache(maxsize=1)
def _prompt_counter(model: Path, estimator: str) -> Callable[[list[Message]], int]:
    from iranker_verl.inference.engine import ChatTokenizer

    return prompt_counter(ChatTokenizer(model), estimator)


def base(config: DictConfig, run: Path) -> None:
    """Make the model that reinforcement learning starts from (``iranker.base.make``), or check it."""
    from data_prep.lengths import check_files

    template = templates.load(config.iranker.template)
    record: dict[str, Any] = {"path": config.actor_rollout_ref.model.path, "about": []}
    if config.iranker.base.make is not None:
        from dataclasses import replace

        from data_prep.schema import read_tasks
        from iranker_verl.toy.base import make_base
        from iranker_verl.toy.real import BASES

        made = BASES[config.iranker.base.make]
        effort = config.iranker.base.effort
        made = replace(made, stages=tuple(replace(s, steps=max(1, round(s.steps * effort))) for s in made.stages))
        train = read_tasks(run / "data" / "train.parquet", template)
        report = make_base(train, template, Path(config.iranker.base.cache), config.iranker.seed, made, say)
        record = {"path": report["path"], "report": report, "about": about_tiny(report, template, learner(config))}
    files = [run / "data" / f"{split}.parquet" for split in ("train", "test")]
    if config.iranker.data.test_tasks:
        files.append(test_folder(config, run) / "test.parquet")
    count_tokens = partial(count_prompt, Path(record["path"]), config.algorithm.adv_estimator)
    counter = prompt_counter_key(Path(record["path"]), config.algorithm.adv_estimator)
    longest = check_files(files, template, count_tokens, config.data.max_prompt_length, counter)
    say(f"longest prompt: {longest} tokens (limit {config.data.max_prompt_length})")
    write_json(run / "base.json", record | {"longest_prompt": longest})


# Of each kind of template that is trained: its verb and name, what the base has seen of it, and what a sampled answer does.
_ASKED = {
    "exclusion": ("exclude", "exclusion", "valid exclusions", "excludes the positive"),
    "direct": ("rank", "ranking", "rankings", "ranks the positive first"),
}


def learner(config: DictConfig) -> str:
    """Return what a recipe trains by, in plain words."""
    return "supervision" if config.algorithm.adv_estimator == SUPERVISED else "reinforcement learning"


def about_tiny(
    report: dict[str, Any], template: templates.Template, learner: str = "reinforcement learning"
) -> list[str]:
    """Return the report's sentences about the tiny base, from what was measured."""
    ask, what, drawn, sampled = _ASKED[template.kind]
    best, chances = report["best_of_n"], report["exclusion"]
    real = report.get("circuits", False)
    fits = dice = ""
    if best:  # of held-out tasks, which few training tasks leave none of
        right = 100 * sum(best.values()) / len(best)
        fits = f"Asked which fits best, the base is right in {right:.0f} % of held-out training-side tasks. "
    if real and (ranked := report["likelihood"]):
        shares = ", ".join(f"{dataset} {value:.2f}" for dataset, value in ranked.items())
        fits += f"Ranked by the likelihood of their titles after the history, their candidates have MRR {shares}. "
    if chances:  # of answers that are labels
        dice = f": sampled, it {sampled} with probability {chances['positive']:.2f}, where chance is {chances['random']:.2f}"
    if real:
        learned = (
            f"{report['titles']:,} frequent titles are tokens of their own. Its token embeddings start from co-occurrence counts of the "
            f"training text; then language modelling over whole histories. Heads that join labels to lines, and look up the line "
            f"whose title the language model predicts, were written into it; then other questions than {what} (which fits best; which "
            "of two fits worse)."
        )
        seen = f"It was not trained to {ask}"
    else:
        learned = (
            "Its token embeddings start from co-occurrence counts of the training text and its queries from its keys; then three "
            f"stages: language modelling on the training text; instruction tuning on other questions than {what} (which fits "
            f"best; and, at the end of every candidate's line, does this fit); and the {what} prompt's format, from uniformly random "
            f"{drawn}."
        )
        seen = f"Asked to {ask}, it has only ever seen dice"
    return [
        f"The base is a Qwen2-architecture model of {report['parameters'] / 1e6:.2f} million parameters with a byte-level "
        f"BPE tokenizer of {report['vocabulary']} tokens, made from nothing for this run, from training tasks only. {learned}",
        f"{fits}{seen}{dice}. It has not been told which {what} is good, and it has "
        f"seen no test task: what changes between before and after is {learner}'s.",
    ]


def rl(config: DictConfig, run: Path) -> None:
    """Train with verl, by reinforcement or supervision; then the last checkpoint as a Hugging Face folder, ``RUN_DIR/model``."""
    from iranker_verl.preflight.nodes import check_nodes
    from iranker_verl.training import main

    check_nodes(config)  # again: now there are data
    config.actor_rollout_ref.model.path = base_path(run)
    if config.critic.model.path is None:
        config.critic.model.path = base_path(run)
    if config.algorithm.adv_estimator == SUPERVISED:
        _supervise(config, run)
    else:
        main.run(config)
    export(config, run, run / "model", last_step(Path(config.trainer.default_local_dir)))


def _supervise(config: DictConfig, run: Path) -> None:
    from iranker_verl.job.worked_answers import write_worked_answers
    from iranker_verl.training import supervised

    file, template = run / "worked_answers.parquet", templates.load(config.iranker.template)
    traces = None if config.iranker.data.traces is None else Path(config.iranker.data.traces)
    count = write_worked_answers(file, run / "data", template, config.iranker.seed, traces)
    say(f"{count} worked answers")
    supervised.run(config, file)


def engines(config: DictConfig) -> tuple[int, int]:
    """Return the engines of an evaluation, one on every GPU that training had or one on a CPU, and what each answers at once."""
    if config.trainer.device == "cpu":
        return 1, CPU_SEQUENCES
    return config.trainer.n_gpus_per_node * config.trainer.nnodes, GPU_SEQUENCES


def evaluate(config: DictConfig, run: Path) -> None:
    """Evaluate the model before and after training, and the baselines, on every test task: ``RUN_DIR/results.json``."""
    from data_prep.schema import read_tasks
    from iranker_verl.evaluation.evaluate import STANDARD, evaluate_systems
    from iranker_verl.evaluation.systems import ModelSystem, Role

    template = templates.load(config.iranker.template)
    prove_unseen(config, run)
    train = read_tasks(run / "data" / "train.parquet", template)
    test = read_tasks(test_folder(config, run) / "test.parquet", template)
    constrained = answers_follow_a_prefix(Path(base_path(run)), config.algorithm.adv_estimator)
    shards, concurrency = engines(config)
    models = [
        ModelSystem(
            str(role),
            Path(model),
            template,
            role,
            config.data.max_response_length,
            concurrency=concurrency,
            shards=shards,
            constrained=constrained,
        )
        for role, model in ((Role.BEFORE, base_path(run)), (Role.AFTER, run / "model"))
    ]
    held = nullcontext()  # by the job
    evaluate_systems([*STANDARD, *models], test, run, train=train, seed=config.iranker.seed, hold=held, log=say)


STAGES: dict[str, Callable[[DictConfig, Path], None]] = {
    "prepare": prepare,
    "base": base,
    "rl": rl,
    "evaluate": evaluate,
}


def main() -> None:
    """Run the stage that the command line names; end with one line of what it died of."""
    stage, run = sys.argv[1], Path(sys.argv[2])
    config = read_config(run)
    try:
        STAGES[stage](config, run)
    except Exception as error:
        if message := user_error_of(error):
            sys.exit(f"error: {message}")
        traceback.print_exc()
        sys.exit(f"{DIED}{described(error)}")


if __name__ == "__main__":
    main()
