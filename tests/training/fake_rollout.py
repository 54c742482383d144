"""The agent loop over an engine whose responses a test chooses. A token is a character."""

import asyncio
from types import SimpleNamespace

from omegaconf import OmegaConf
from verl.trainer.ppo.reward import get_custom_reward_fn

from iranker_verl.training.agent_loop import RankingAgentLoop

EOS = 0


def run_episode(
    row,
    answers,
    *,
    template,
    reward,
    path,
    log_probs=True,
    limit=32,
    prompt_limit=4000,
    counterfactual=False,
    answer_prefix="",
    one_call=0.0,
    session_reward="last",
    branch=1,
    overlong=None,
):
    """Return the outputs for a prepared row, and the requests to the engine: ``id``, ``text`` and ``params`` of each.

    ``row`` has ``uid``, ``session_id`` and ``global_steps`` as well, and ``first_pool`` with a curriculum; ``reward`` is the reward_kwargs of the function at ``path``.
    """
    requests, todo = [], iter(answers)
    loop = object.__new__(RankingAgentLoop)
    loop.template = template
    function = {"path": str(path), "name": "compute_score", "reward_kwargs": reward}
    loop.config = OmegaConf.create(
        {
            "reward": {"custom_reward_function": function},
            "iranker": {"seed": 1, "credit": {"session_reward": session_reward}},
        }
    )
    loop.one_call, loop.branch, loop.overlong = one_call, branch, overlong
    loop.score = get_custom_reward_fn(loop.config)
    loop.needs_counterfactual_rewards, loop.answer_prefix = counterfactual, [ord(c) for c in answer_prefix]
    loop.rollout_config = SimpleNamespace(response_length=limit, prompt_length=prompt_limit)
    loop.chat = SimpleNamespace(render=lambda messages: (text := messages[-1]["content"], [ord(c) for c in text]))
    loop.tokenizer = SimpleNamespace(
        eos_token_id=EOS, decode=lambda ids, skip_special_tokens: "".join(chr(i) for i in ids if i != EOS)
    )

    async def generate(request_id, prompt_ids, sampling_params, priority):
        requests.append(SimpleNamespace(id=request_id, text="".join(map(chr, prompt_ids)), params=sampling_params))
        ids = [ord(c) for c in next(todo)]
        probs = [-0.5] * len(ids) if log_probs else None
        return SimpleNamespace(token_ids=ids, log_probs=probs, extra_fields={"min_global_steps": 7})

    loop.server_manager = SimpleNamespace(generate=generate)

    async def run():
        loop.loop = asyncio.get_running_loop()
        return await loop.run({"temperature": 1.0}, **row)

    return asyncio.run(run()), requests
