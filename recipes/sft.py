"""Supervised fine-tuning, watched.

    accelerate launch recipes/sft.py                                          # the embedded Instruct stage, on a CPU
    accelerate launch recipes/sft.py --config configs/tiny/think/sft.yaml --watch_every 10

Settings are those of TRL's SFTConfig and ModelConfig, `mix...` for the data and `watch_...` for the monitor.
"""

from trl import ModelConfig, SFTConfig, SFTTrainer

from divwatch import DiversityCallback, WatchConfig, recipe
from divwatch.config import WatchArguments


def main() -> None:
    mixing, training, model, watching = recipe.parse(
        (recipe.MixArguments, SFTConfig, ModelConfig, WatchArguments), "configs/tiny/instruct/sft.yaml"
    )
    watch_config = WatchConfig.from_arguments(watching)
    training.model_init_kwargs = recipe.prepare(training, model)
    tokenizer = recipe.load_tokenizer(mixing, training, model)
    dataset, report = recipe.load_data(mixing, training, "sft", tokenizer)
    trainer = SFTTrainer(
        model=model.model_name_or_path,
        args=training,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=recipe.peft_config(model),
    )
    trainer.add_callback(DiversityCallback(trainer, watch_config, mix=report.as_dict(), rows=dataset))
    recipe.train(trainer)


if __name__ == "__main__":
    recipe.run(main)
