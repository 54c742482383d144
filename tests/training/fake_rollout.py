"""An agent loop of ours over an engine that answers what a test wants. A token is a character."""

import asyncio
from types import SimpleNamespace

from omegaconf import OmegaConf
from verl.trainer.ppo.reward import get_custom_reward_fn

EOS = 0


def play(
    loop_class, row, answers, *, template, reward, path, log_probs=True, limit=32, prompt_limit=4000, looks_around=False
):
    """The outputs for a prepared row, and what the engine was asked: ``id``, ``text`` and ``params`` of each request.

    ``row`` has ``uid``, ``session_id`` and ``global_steps`` as well, and ``first_pool`` where a curriculum speaks; ``reward`` is the reward_kwargs of the function at ``path``.
    """
    asked, todo = [], iter(answers)
    loop = object.__new__(loop_class)
    loop.template = template
    function = {"path": str(path), "name": "compute_score", "reward_kwargs": reward}
    loop.config = OmegaConf.create({"reward": {"custom_reward_function": function}, "iranker": {"seed": 1}})
    loop.score = get_custom_reward_fn(loop.config)
    loop.looks_around = looks_around
    loop.rollout_config = SimpleNamespace(response_length=limit, prompt_length=prompt_limit)
    loop.chat = SimpleNamespace(encode=lambda messages: [ord(c) for c in messages[-1]["content"]])
    loop.tokenizer = SimpleNamespace(
        eos_token_id=EOS, decode=lambda ids, skip_special_tokens: "".join(chr(i) for i in ids if i != EOS)
    )

    async def generate(request_id, prompt_ids, sampling_params, priority):
        asked.append(SimpleNamespace(id=request_id, text="".join(map(chr, prompt_ids)), params=sampling_params))
        ids = [ord(c) for c in next(todo)]
        probs = [-0.5] * len(ids) if log_probs else None
        return SimpleNamespace(token_ids=ids, log_probs=probs, extra_fields={"min_global_steps": 7})

    loop.server_manager = SimpleNamespace(generate=generate)

    async def run():
        loop.loop = asyncio.get_running_loop()
        return await loop.run({"temperature": 1.0}, **row)

    return asyncio.run(run()), asked
