"""The options of a recipe: ours, and limits of verl's.

:class:`Recipe` is the content of ``iranker:``. It is registered with Hydra as ``iranker_options``, which ``iranker.yaml``
takes into every recipe, so that Hydra refuses options that there are not, and values of another type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore

from data_prep.options import Options
from data_prep.world import WorldSize
from iranker_verl.options import as_defaults, option

Preparation: Any = as_defaults(Options, leave_out=("seed",))  # the seed is iranker.seed
World: Any = as_defaults(WorldSize)


@dataclass
class Data:
    """What is prepared. Options of preparation that are null keep the published value, or the embedded world's own."""

    raw: str | None = option(None, "raw files to prepare: a folder or a file; null writes and uses the embedded world")
    tasks: list[str] | None = option(None, "datasets to prepare, e.g. [rec-movie]; null takes all that are found")
    test_tasks: list[str] | None = option(
        None, "datasets to test on, of scenarios that `tasks` has none of (zero-shot); null: what is trained on"
    )
    traces: str | None = option(
        None,
        "what algorithm.adv_estimator=supervised teaches: a store of `iranker cot collect`; null: worked answers to the training rows",
    )
    options: Preparation = option(Preparation, "options of preparation (data_prep/options.py)")
    world: World = option(World, "size of the embedded world (data_prep/world)")


@dataclass
class Base:
    """The model that training starts from."""

    make: str | None = option(
        None,
        "make a tiny base model, tiny: as the embedded world needs it, real: as real data does; null: "
        "actor_rollout_ref.model.path is the base",
        choices=("tiny", "real"),
    )
    cache: str = option("runs/cache", "where tiny base models are kept")
    effort: float = option(1.0, "share of the tiny base's training steps; below 1 it runs, but learns less", above=0)


@dataclass
class Curriculum:
    """How many candidates training episodes begin with, and which datasets a batch draws from."""

    first_pool: int | None = option(
        None,
        "candidates at the first RL step; null: no curriculum, all tasks as often and with all candidates",
        least=2,
    )
    rise: float = option(
        0.25,
        "one candidate more where the skill of a dataset's sampled episodes (0: uniform policy, 1: perfect) is at least this",
        least=0,
        most=1,
    )
    fall: float = option(0.05, "one candidate fewer where it is below this", least=0, most=1)
    patience: int | None = option(
        128, "one candidate more for every so many tasks of a dataset, whatever its skill; null: never", least=1
    )
    focus: float = option(
        0.75, "share of a batch that goes to datasets by what they have left to learn", least=0, most=1
    )


@dataclass
class Credit:
    """Advantages of exclusions (iranker_verl/training/credit)."""

    prior: float = option(
        8.0, "pseudo-observations of what a random valid exclusion earns, in the baseline of exclusion_grpo", least=0
    )
    normalise: str = option(
        "batch",
        "batch: divide by the standard deviation of the batch's advantages (exclusion_gae: subtract their mean as well); "
        "group: by that of the rewards compared with each other (not with exclusion_gae); none",
        choices=("batch", "group", "none"),
    )
    overlong: int | None = option(
        None,
        "tokens before data.max_response_length over which a response loses up to 1 of its reward for its length (DAPO); null: none",
        least=1,
    )
    session_reward: str = option(
        "last",
        "what verl's grpo and the like compare sessions by: the reward of their last exclusion, as verl does, or the sum of all",
        choices=("last", "sum"),
    )
    weights: str = option(
        "session",
        "of rows in the loss. session: an exclusion counts as one of those that its episode can take; rr: by what it matters to the "
        "reciprocal rank; none: all rows the same",
        choices=("session", "rr", "none"),
    )


@dataclass
class Recipe:
    """The content of ``iranker:``."""

    template: str = option(
        "label",
        "prompt template: an id of iranker_verl/ranking/templates, or a .yaml file; the data is prepared with it",
    )
    run_dir: str | None = option("runs/${trainer.experiment_name}", "where a run keeps everything that it makes")
    seed: int = option(1, "of data, base, training and evaluation", least=0)
    gpu_memory: float = option(80.0, "GiB of a GPU, which `iranker plan` counts with", above=0)
    data: Data = option(Data, "what is prepared")
    base: Base = option(Base, "the model that training starts from")
    minutes: int = option(
        60, "on 2 CPU cores, for all of the job; it sets what a recipe writes as ${per_hour:…}", least=1
    )
    max_restarts: int = option(
        0, "times in a row that training starts again after a crash without getting further than before", least=0
    )
    token_budget: int | None = option(
        None,
        "end training when the LLM has read and written so many tokens; null: trainer.total_training_steps",
        least=1,
    )
    one_call: float = option(
        0.0,
        "share of exclusion_order's training episodes that end with their first call, so that the model learns to rank in one",
        least=0,
        most=0.9,
    )
    branch: int = option(
        1,
        "responses to each state of a training episode, compared with each other by exclusion_grpo; the first of them decides how the "
        "episode continues",
        least=1,
    )
    curriculum: Curriculum = option(Curriculum, "which tasks are trained on")
    credit: Credit = option(Credit, "advantages of exclusions")


ConfigStore.instance().store(name="iranker_options", node={"iranker": Recipe}, package="_global_")


@dataclass
class Optimiser:
    """verl's ``optim``."""

    lr: float = option(1e-6, "learning rate", above=0)


@dataclass
class Role:
    """verl's ``critic``, and what its ``actor_rollout_ref.actor`` shares with it."""

    ppo_mini_batch_size: int = option(1, "tasks an optimiser step", least=1)
    ppo_epochs: int = option(1, "passes over a batch", least=1)
    optim: Optimiser = option(Optimiser, "the optimiser")


@dataclass
class Actor(Role):
    """verl's ``actor_rollout_ref.actor``."""

    ppo_micro_batch_size_per_gpu: int | None = option(None, "rows of a forward pass", least=1)
    strategy: str = option("fsdp2", "how weights are sharded", choices=("fsdp", "fsdp2"))


@dataclass
class Rollout:
    """verl's ``actor_rollout_ref.rollout``."""

    n: int = option(1, "rollouts a task", least=1)
    temperature: float = option(1.0, "of sampling", above=0)
    max_model_len: int | None = option(None, "tokens of prompt and answer", least=1)


@dataclass
class ActorRolloutRef:
    """verl's ``actor_rollout_ref``."""

    actor: Actor = option(Actor, "the policy that learns")
    rollout: Rollout = option(Rollout, "the policy that answers")


@dataclass
class Batches:
    """verl's ``data``."""

    train_batch_size: int = option(1, "tasks a step", least=1)
    max_prompt_length: int = option(1, "tokens", least=1)
    max_response_length: int = option(1, "tokens", least=1)


@dataclass
class Trainer:
    """verl's ``trainer``. Its default of ``save_freq``, -1, saves nothing, not even what was learned."""

    total_training_steps: int = option(1, "steps", least=1)
    n_gpus_per_node: int = option(1, "devices a node", least=1)
    nnodes: int = option(1, "nodes", least=1)
    save_freq: int = option(1, "steps between checkpoints", least=1)
    test_freq: int = option(-1, "steps between validations; -1: none", least=-1)


@dataclass
class Composed:
    """A whole composed recipe: our options, and those of verl that it takes with values that it cannot use."""

    iranker: Recipe = option(Recipe, "ours")
    data: Batches = option(Batches, "rows")
    actor_rollout_ref: ActorRolloutRef = option(ActorRolloutRef, "the policy")
    critic: Role = option(Role, "the value function")
    trainer: Trainer = option(Trainer, "the training loop")
