"""What a job says before its first step, which takes a minute or more of starting."""

from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

from verl.trainer import main_ppo

from iranker_verl.console import MARK
from iranker_verl.training import main, saving, trainer


def test_each_part_of_the_start_is_said_when_it_begins(monkeypatch, capsys):
    monkeypatch.setattr(main_ppo, "run_ppo", lambda config, runner: print("ray starts"))
    monkeypatch.setattr(main, "task_runner_class", lambda: None)
    monkeypatch.setattr(main, "keep_present_folder_out", lambda: None)
    main.run(main.compose_recipe("recipes/tiny_cpu", []))

    def init(self):
        print("engines start")
        raise InterruptedError

    own = object.__new__(trainer.EliminationTrainer)
    own.replay_buffer = SimpleNamespace()
    monkeypatch.setattr(saving.SavingTrainer, "init", init)
    monkeypatch.setattr(saving.SavingTrainer, "fit", lambda self, manager: print("rollouts start"), raising=False)
    with pytest.raises(InterruptedError):
        own.init()
    own.fit(None)
    assert capsys.readouterr().out.splitlines() == [
        f"{MARK}starting Ray",
        "ray starts",
        f"{MARK}loading the model, for updates and into vLLM",
        "engines start",
        f"{MARK}playing the first episodes",
        "rollouts start",
    ]
