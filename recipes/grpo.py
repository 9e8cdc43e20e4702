"""Reinforcement learning with verifiable rewards, watched: GRPO, as in Olmo 3's RLVR and RL-Zero stages.

    accelerate launch recipes/grpo.py                                         # the embedded RL-Zero stage, on a CPU
    accelerate launch recipes/grpo.py --config configs/olmo3/rl_zero/math.yaml

A completion is rewarded if the verifier named in its row judges it correct. The panel uses the same verifiers.
Settings are those of TRL's GRPOConfig and ModelConfig, `mix...` for the data and `watch_...` for the monitor.
"""

from trl import GRPOConfig, GRPOTrainer, ModelConfig

from divwatch import DiversityCallback, WatchConfig, recipe
from divwatch.config import WatchArguments
from divwatch.verify.rewards import reward_by_row


def main() -> None:
    mixing, training, model, watching = recipe.parse(
        (recipe.MixArguments, GRPOConfig, ModelConfig, WatchArguments), "configs/tiny/rl_zero/grpo.yaml"
    )
    watch_config = WatchConfig.from_arguments(watching)
    training.model_init_kwargs = recipe.prepare(training, model)
    tokenizer = recipe.load_tokenizer(mixing, training, model)
    dataset, report = recipe.load_data(mixing, training, "rl", tokenizer)
    trainer = GRPOTrainer(
        model=model.model_name_or_path,
        args=training,
        reward_funcs=reward_by_row(dataset, unsafe_code=watch_config.unsafe_code),
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=recipe.peft_config(model),
    )
    trainer.add_callback(DiversityCallback(trainer, watch_config, mix=report.as_dict()))
    recipe.train(trainer)


if __name__ == "__main__":
    recipe.run(main)
