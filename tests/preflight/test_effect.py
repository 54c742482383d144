"""What a person has named has an effect, or is refused in one line with the option that has."""

import warnings
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("verl")

from iranker_verl.errors import UserError
from iranker_verl.preflight.effect import check_effect
from iranker_verl.preflight.reads import is_read
from iranker_verl.training.main import compose_recipe, named_options

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))
PUBLISHED = "recipes/iranker_3b"
TINY = "recipes/tiny_cpu"


@cache
def compose(recipe, *overrides):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compose_recipe(ROOT / recipe, list(overrides))


def effect(recipe, *overrides):
    check_effect(compose(recipe, *overrides), named_options(ROOT / recipe, list(overrides)))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_option_of_our_recipes_has_an_effect(recipe):
    effect(recipe)


# as verl's own examples set them
LEGITIMATE = [
    "trainer.nnodes=4",
    "trainer.logger=[console,wandb]",
    "trainer.project_name=mine",
    "trainer.experiment_name=first",
    "trainer.save_freq=10",
    "trainer.test_freq=10",
    "trainer.total_epochs=15",
    "trainer.val_before_train=true",
    "trainer.resume_mode=disable",
    "trainer.max_actor_ckpt_to_keep=3",
    "trainer.rollout_data_dir=/r",
    "trainer.validation_data_dir=/v",
    "trainer.log_val_generations=10",
    "trainer.critic_warmup=5",
    "+trainer.remove_previous_ckpt_in_save=true",
    "data.train_batch_size=128",
    "data.max_prompt_length=2000",
    "data.max_response_length=1024",
    "data.shuffle=false",
    "data.seed=3",
    "data.val_max_samples=100",
    "data.dataloader_num_workers=2",
    "data.trust_remote_code=true",
    "actor_rollout_ref.actor.optim.lr=1e-6",
    "actor_rollout_ref.actor.optim.weight_decay=0.1",
    "actor_rollout_ref.actor.optim.clip_grad=0.5",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=10",
    "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio=0.1",
    "actor_rollout_ref.actor.optim.lr_scheduler_type=cosine",
    "actor_rollout_ref.actor.ppo_mini_batch_size=16",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=9000",
    "actor_rollout_ref.actor.ppo_epochs=2",
    "actor_rollout_ref.actor.use_kl_loss=true",
    "actor_rollout_ref.actor.kl_loss_coef=0.01",
    "actor_rollout_ref.actor.kl_loss_type=kl",
    "actor_rollout_ref.actor.entropy_coeff=0.001",
    "actor_rollout_ref.actor.clip_ratio_low=0.2",
    "actor_rollout_ref.actor.clip_ratio_high=0.28",
    "actor_rollout_ref.actor.clip_ratio_c=10",
    "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum",
    "actor_rollout_ref.actor.fsdp_config.param_offload=true",
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload=true",
    "actor_rollout_ref.actor.fsdp_config.fsdp_size=8",
    "actor_rollout_ref.actor.fsdp_config.forward_prefetch=true",
    "actor_rollout_ref.actor.fsdp_config.reshard_after_forward=false",
    "actor_rollout_ref.actor.fsdp_config.model_dtype=bf16",
    "actor_rollout_ref.actor.fsdp_config.offload_policy=true",
    "actor_rollout_ref.actor.fsdp_config.wrap_policy.min_num_params=100",
    "actor_rollout_ref.actor.ulysses_sequence_parallel_size=2",
    "actor_rollout_ref.actor.strategy=fsdp2",
    "actor_rollout_ref.actor.use_torch_compile=false",
    "actor_rollout_ref.actor.entropy_from_logits_with_chunking=true",
    "actor_rollout_ref.actor.entropy_checkpointing=true",
    "actor_rollout_ref.actor.shuffle=true",
    "actor_rollout_ref.ref.fsdp_config.param_offload=true",
    "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=9000",
    "actor_rollout_ref.model.enable_gradient_checkpointing=true",
    "actor_rollout_ref.model.use_remove_padding=true",
    "actor_rollout_ref.model.trust_remote_code=true",
    "actor_rollout_ref.model.use_liger=true",
    "actor_rollout_ref.model.use_shm=true",
    "actor_rollout_ref.model.lora_rank=32",
    "actor_rollout_ref.model.enable_activation_offload=true",
    "+actor_rollout_ref.model.override_config.attn_implementation=eager",
    "actor_rollout_ref.rollout.n=8",
    "actor_rollout_ref.rollout.temperature=0.7",
    "actor_rollout_ref.rollout.top_p=0.9",
    "actor_rollout_ref.rollout.top_k=50",
    "actor_rollout_ref.rollout.gpu_memory_utilization=0.6",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=2",
    "actor_rollout_ref.rollout.max_model_len=4096",
    "actor_rollout_ref.rollout.max_num_batched_tokens=16384",
    "actor_rollout_ref.rollout.max_num_seqs=256",
    "actor_rollout_ref.rollout.enforce_eager=true",
    "actor_rollout_ref.rollout.free_cache_engine=false",
    "actor_rollout_ref.rollout.load_format=safetensors",
    "actor_rollout_ref.rollout.dtype=float16",
    "actor_rollout_ref.rollout.enable_chunked_prefill=false",
    "actor_rollout_ref.rollout.enable_prefix_caching=false",
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=9000",
    "actor_rollout_ref.rollout.calculate_log_probs=true",
    "actor_rollout_ref.rollout.agent.num_workers=4",
    "actor_rollout_ref.rollout.val_kwargs.n=2",
    "actor_rollout_ref.rollout.val_kwargs.temperature=0.5",
    "+actor_rollout_ref.rollout.engine_kwargs.vllm.block_size=16",
    "algorithm.gamma=0.99",
    "algorithm.lam=0.95",
    "critic.optim.lr=1e-5",
    "critic.ppo_infer_max_token_len_per_gpu=16384",
    "critic.model.enable_gradient_checkpointing=false",
    "critic.cliprange_value=0.3",
    "critic.ppo_epochs=2",
    "reward.custom_reward_function.path=/mine.py",
    "+reward.custom_reward_function.reward_kwargs.kind=graded",
    "reward.num_workers=4",
    "trainer.v1.sampler.sampler_kwargs.deadline_s=600",
    "ray_kwargs.ray_init.num_cpus=32",
    "+ray_kwargs.ray_init.namespace=mine",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units=4",
    "+unseen=rec",
    "iranker.token_budget=1000000",
    "iranker.data.options.max_chars=2000",
    "iranker.template=think-text",
    "iranker.seed=3",
]


@pytest.mark.parametrize("override", LEGITIMATE)
def test_what_verl_reads_is_let_through(override):
    config, named = compose(PUBLISHED), named_options(ROOT / PUBLISHED, [override])
    check_effect(_with(config, override), named[-1:])


def _with(config, override):
    """``config`` with an override; without Hydra, which takes a second."""
    from omegaconf import OmegaConf, open_dict

    changed = config.copy()
    name, _, value = override.lstrip("+").partition("=")
    with open_dict(changed):
        if "." in name:
            OmegaConf.update(changed, name, OmegaConf.create(f"x: {value}").x, force_add=True)
    return changed


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("custom_reward_function.path=/no/such.py", "set reward.custom_reward_function.path=/no/such.py"),
        ("custom_reward_function.name=mine", "set reward.custom_reward_function.name=mine"),
        ("reward_model.reward_manager=dapo", "set reward.reward_manager.name=dapo"),
        ("reward_model.num_workers=7", "set reward.num_workers=7"),
        ("reward_model.enable=true", "set reward.reward_model.enable=True"),
        ("reward_model.model.path=/m", "set reward.reward_model.model_path=/m"),
        ("reward_model.rollout.dtype=half", "set reward.reward_model.rollout.dtype=half"),
        ("sandbox_fusion.url=http://x", "set reward.sandbox_fusion.url=http://x"),
        ("actor_rollout_ref.actor.grad_clip=0.5", "actor_rollout_ref.actor.optim.clip_grad is what has"),
        ("critic.grad_clip=0.5", "critic.optim.clip_grad is what has"),
        ("critic.forward_micro_batch_size_per_gpu=4", "nothing in verl"),
        ("critic.ppo_micro_batch_size_per_gpu=4", "critic.ppo_infer_max_token_len_per_gpu tokens; set that"),
        ("critic.ppo_max_token_len_per_gpu=8192", "critic.ppo_infer_max_token_len_per_gpu tokens; set that"),
        ("critic.use_dynamic_bsz=true", "critic.ppo_infer_max_token_len_per_gpu tokens; set that"),
        ("actor_rollout_ref.ref.fsdp_config.param_offload=false", "on the host whatever is set"),
        ("data.return_raw_input_ids=true", "nothing in verl"),
        ("trainer.balance_batch=false", "nothing in verl"),  # verl's V1 trainer always balances
        ("actor_rollout_ref.nccl_timeout=100", "nothing in verl"),
        ("actor_rollout_ref.actor.freeze_vision_tower=true", "nothing in verl"),
        ("+trainer.totl_epochs=3", "trainer.total_epochs"),
        ("+trainer.lora_rank=3", "nothing in verl"),
        ("+nonsense.x=3", "nothing in verl"),
        ("+actor_rollout_ref.rollout.temprature=2", "temperature is the nearest"),
        ("+trainer.v1.sampler.sampler_kwargs.dead_line=5", "nothing in verl"),
        ("algorithm.kl_ctrl.kl_coef=0.1", "use_kl_in_reward is false"),
        ("algorithm.kl_penalty=mse", "use_kl_in_reward is false"),
        ("algorithm.filter_groups.enable=true", "custom_sampler"),
        ("algorithm.filter_groups.metric=acc", "custom_sampler"),
        ("trainer.v1.sampler.sync_refill_failed_groups=true", "custom_sampler"),
        ("algorithm.norm_adv_by_std_in_grpo=false", "adv_estimator=gae does not read it"),
        ("trainer.v1.separate_async.parameter_sync_step=2", "trainer_mode is sync"),
        ("trainer.v1.sampler.max_off_policy_threshold=2", "trainer_mode is sync"),
        ("trainer.resume_from_path=/c", "resume_mode is not resume_path"),
        ("reward.reward_model.model_path=/m", "reward.reward_model.enable=true"),
        ("actor_rollout_ref.rollout.multi_turn.max_user_turns=3", "multi_turn.enable=true"),
        ("distillation.teacher_models.teacher_model.key=x", "distillation.enabled"),
        ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4", "use_dynamic_bsz is true"),
        ("actor_rollout_ref.actor.clip_ratio=0.3", "clip_ratio_low"),
        ("actor_rollout_ref.model.lora_alpha=64", "lora_rank is 0"),
        ("actor_rollout_ref.rollout.engine_kwargs.sglang.x=1", "rollout.name is vllm"),
        ("skip.rollout.dump_dir=/x", "V0"),
        ("iranker.curriculum.rise=0.6", "set iranker.curriculum.first_pool"),
        ("iranker.credit.prior=3", "not for gae"),
        ("iranker.base.effort=0.5", "no base is made"),
    ],
)
def test_what_nobody_reads_is_refused_in_one_line_with_what_works(override, words):
    name = override.lstrip("+").partition("=")[0]
    with pytest.raises(UserError) as error:
        check_effect(_with(compose(PUBLISHED), override), [name])
    message = str(error.value)
    assert "\n" not in message and words in message and name.rpartition(".")[2] in message, message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("iranker.minutes=15", "the recipe sets nothing by the time that there is"),
        ("actor_rollout_ref.model.path=/m", "iranker.base.make=tiny makes its own base; set iranker.base.make=null"),
        ("critic.optim.lr=1e-4", "there is no critic"),
        ("actor_rollout_ref.ref.fsdp_config.param_offload=true", "there is no reference policy"),
        ("actor_rollout_ref.actor.kl_loss_coef=0.1", "use_kl_loss is false"),
        ("algorithm.lam=0.9", "does not read it"),
        ("iranker.credit.normalise=group", "it is for exclusion_grpo, exclusion_gae, not for"),
        ("iranker.credit.prior=4", "it is for exclusion_grpo, not for"),
        ("iranker.credit.session_reward=sum", "takes the reward of every exclusion"),
        ("actor_rollout_ref.rollout.val_kwargs.n=4", "nothing is validated"),
        ("data.val_max_samples=4", "nothing is validated"),
    ],
)
def test_options_of_a_mode_that_is_off(override, words):
    name = override.partition("=")[0]
    with pytest.raises(UserError, match=words):
        check_effect(_with(compose(TINY), override), [name])


def test_episodes_of_one_call_are_for_the_order_alone():
    config = _with(compose(TINY), "iranker.one_call=0.2")
    check_effect(config, ["iranker.one_call"])
    with pytest.raises(UserError, match="it is for exclusion_order, not for exclusion_grpo"):
        check_effect(_with(config, "algorithm.adv_estimator=exclusion_grpo"), ["iranker.one_call"])


def test_a_recipes_own_base_can_be_exchanged_for_a_model():
    config = _with(compose(TINY), "iranker.base.make=null")
    check_effect(config, ["iranker.base.effort", "iranker.base.make"])
    with pytest.raises(UserError, match="no base is made"):
        check_effect(config, ["iranker.base.effort"])


def test_the_embedded_world_is_not_sized_where_raw_data_is_given():
    config = _with(_with(compose(TINY), "iranker.data.raw=/raw"), "iranker.data.world.users=30")
    with pytest.raises(UserError, match=r"iranker\.data\.raw is set"):
        check_effect(config, ["iranker.data.world.users"])


def test_an_environment_variable_of_ours_that_nothing_reads(monkeypatch):
    monkeypatch.setenv("IRANKER_APIKES", "x")
    with pytest.raises(UserError, match="environment variable IRANKER_APIKES has no effect"):
        check_effect(compose(TINY), [])


def test_an_environment_variable_of_verl_that_nothing_reads_is_a_warning(monkeypatch, capsys):
    """Images and scripts around verl set some, such as VERL_HOME."""
    for name in ("VERL_HOME", "VERL_PLATFORM", "VERL_PLAT"):
        monkeypatch.setenv(name, "x")
    check_effect(compose(TINY), [])
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[4] for line in lines] == ["VERL_HOME", "VERL_PLAT"]
    assert all(line.startswith("warning: the environment variable") for line in lines)


def test_an_environment_variable_that_is_read(monkeypatch, capsys):
    # the last two by parts of verl that no job of ours runs
    for name in ("VERL_LOGGING_LEVEL", "VERL_PLATFORM", "IRANKER_API_KEY", "VERL_SFT_LOGGING_LEVEL", "VERL_SEED"):
        monkeypatch.setenv(name, "x")
    check_effect(compose(TINY), [])
    assert capsys.readouterr().err == ""


def test_a_dataclass_reads_only_its_own_fields():
    from verl.workers.config import FSDPActorConfig, FSDPOptimizerConfig

    assert is_read("grad_clip", FSDPOptimizerConfig) and not is_read("grad_clip", FSDPActorConfig)


def test_named_are_the_overrides_and_the_recipes_own_options(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("defaults:\n  - ppo_trainer\n  - _self_\ntrainer:\n  nnodes: 2\n  v1: {trainer_mode: sync}\n")
    assert named_options(path, ["+a.b=1", "~c", "++d.e={x:1}", "unseen@iranker=rec"]) == [
        *("trainer.nnodes", "trainer.v1.trainer_mode", "a.b", "d.e", "unseen")
    ]
