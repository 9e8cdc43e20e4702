"""Every config under configs/olmo3: its settings exist, its figures follow from each other, and it runs.

Two steps on the CPU with a random two-layer Olmo 3 on the recorded Dolci rows, monitor attached. By default one config of
each trainer runs; `-m slow` runs all of them, and one of each trainer under ZeRO-3 on two processes. Open prompts of RL are
graded by a judge behind a local endpoint, programs run in the sandbox.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from divwatch import recipe
from divwatch.config import WatchArguments
from divwatch.mixes.definition import find_mix
from divwatch.mixes.templates import names
from divwatch.store.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs/olmo3").rglob("*.yaml"))
DATA = os.environ.get("DIVWATCH_TEST_DATA")
real_rows = pytest.mark.skipif(DATA is None, reason="DIVWATCH_TEST_DATA names no folder of recorded rows")

SMALL = {
    "max_steps": 2, "gradient_accumulation_steps": 1, "per_device_train_batch_size": 2,
    "use_cpu": "true", "bf16": "false", "dtype": "float32", "attn_implementation": "sdpa",
    "gradient_checkpointing": "false", "report_to": "none", "save_strategy": "no", "disable_tqdm": "true",
    "watch_panel": "tiny", "watch_prompts": 6, "watch_samples": 2, "watch_max_new_tokens": 8, "watch_encoder": "minilm",
    "watch_every": 1, "watch_on_error": "raise", "watch_max_overhead": 0,
}  # fmt: skip
RECIPES = {"sft": "sft", "dpo": "dpo", "rl": "grpo"}
SMALL_BY_STAGE = {
    "sft": {"max_length": 512, "dataset_num_proc": 1},
    "dpo": {"max_length": 512, "dataset_num_proc": 1},
    "rl": {
        "use_vllm": "false", "num_generations": 2, "steps_per_generation": 1, "max_completion_length": 16,
        "mix_max_prompt": 20000,  # its tokens are little more than bytes
    },
}  # fmt: skip


def read(path):
    return yaml.safe_load(path.read_text())


def stage_of(path):
    known = {"sft": "sft", "dpo": "dpo"}
    return known.get(path.stem.split("_")[0], "rl") if path.parent.name != "rl_zero" else "rl"


def named(path):
    return f"{path.parent.name}/{path.stem}"


def run(path, model, out, launcher=(sys.executable,)):
    settings = SMALL | SMALL_BY_STAGE[stage_of(path)]
    settings |= {"model_name_or_path": model, "output_dir": out, "local_data": f"{DATA}/dolci"}
    command = [*launcher, f"recipes/{RECIPES[stage_of(path)]}.py", "--config", str(path)]
    command += [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    env = {**os.environ, "HF_DATASETS_CACHE": f"{out}-cache", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, env=env)


def check_run(path, model, out, launcher=(sys.executable,)):
    done = run(path, model, out, launcher)
    assert done.returncode == 0, done.stderr[:3000] + done.stderr[-3000:]
    record = RunDirectory.of(out)
    assert [look["step"] for look in record.looks()] == [0, 1, 2]
    assert {look["status"] for look in record.looks()} <= {"ok", "not_comparable"}  # random weights never end an answer
    assert record.info()["mix"]["name"] == read(path)["mix"]
    assert f"mix {read(path)['mix']}: " in done.stdout
    return done


@pytest.fixture
def judge(monkeypatch):
    """An endpoint that grades everything 8 of 10; returns the requests that it has had."""
    asked = []

    class Judge(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"message": {"content": "Grade: 8"}}]}).encode())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("DIVWATCH_JUDGE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("DIVWATCH_JUDGE_MODEL", "judge")
    yield asked
    server.shutdown()
    server.server_close()


QUICK = ["instruct/sft", "think/dpo", "rl_zero/math"]


def needs(path):
    """Rows with programs are judged in the sandbox."""
    if stage_of(path) == "rl" and named(path) not in ("rl_zero/math", "rl_zero/if", "rl_zero/general"):
        pytest.importorskip("divwatch.verify.sandbox")
        if shutil.which("bwrap") is None:
            pytest.skip("bubblewrap is not installed: programs cannot be judged")


@real_rows
@pytest.mark.parametrize("path", [p for p in CONFIGS if named(p) in QUICK], ids=named)
def test_a_config_of_each_trainer_runs_two_steps_on_the_released_rows(path, tiny_olmo, tmp_path):
    check_run(path, tiny_olmo, tmp_path / "out")


@real_rows
@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in CONFIGS if named(p) not in QUICK], ids=named)
def test_every_other_config_runs_too(path, tiny_olmo, tmp_path, judge):
    needs(path)
    done = check_run(path, tiny_olmo, tmp_path / "out")
    if named(path) == "rl_zero/general":
        assert judge
        rewards = re.findall(r"'reward': '?([-\d.]+)", done.stdout)
        assert {float(r) for r in rewards} == {10.0}  # the judge's word times reward_weights


@real_rows
@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in CONFIGS if named(p) in QUICK], ids=named)
def test_one_of_each_trainer_runs_under_zero3_on_two_processes(path, tiny_olmo, tmp_path):
    pytest.importorskip("deepspeed")
    from tests.launched.launching import launcher

    check_run(path, tiny_olmo, tmp_path / "out", launcher("zero3", tmp_path, 2))


def test_the_stages_are_all_there():
    assert [named(p) for p in CONFIGS] == [
        "instruct/dpo", "instruct/dpo_lora", "instruct/rl", "instruct/sft", "instruct/sft_lora", "rl_zero/code",
        "rl_zero/general", "rl_zero/if", "rl_zero/math", "rl_zero/mix", "think/dpo", "think/rl", "think/sft",
    ]  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_every_setting_exists_and_they_fit_together(path, tmp_path):
    from trl import DPOConfig, GRPOConfig, ModelConfig, SFTConfig

    trainer = {"sft": SFTConfig, "dpo": DPOConfig, "rl": GRPOConfig}[stage_of(path)]
    known = {
        f.name for kind in (trainer, ModelConfig, recipe.MixArguments, WatchArguments) for f in dataclasses.fields(kind)
    }
    settings = read(path)
    assert set(settings) <= known
    mine = {f.name for f in dataclasses.fields(trainer)}
    on_cpu = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
    trainer(**{name: value for name, value in settings.items() if name in mine} | on_cpu)
    kinds = {"sft": "sft", "dpo": "preference", "rl": "rl"}
    assert find_mix(settings["mix"]).kind == kinds[stage_of(path)]
    assert settings["chat_template"] in names()


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_every_published_value_has_its_source_beside_it(path):
    ours = (
        "mix:",
        "output_dir",
        "watch_",
        "report_to",
        "logging_steps",
        "save_",
        "dataset_num_proc",
        "optim",
        "bf16",
        "seed",
    )
    ours += ("per_device", "vllm_", "use_vllm", "dtype", "attn_impl", "gradient_checkpointing", "packing_strategy")
    ours += ("warmup_steps: 0\n", "max_grad_norm: 1.0\n", "lora_", "use_peft", "chat_template", "mix_")
    if "lora" in path.stem:
        ours += ("learning_rate", "gradient_accumulation_steps")
    for line in path.read_text().splitlines(keepends=True):
        if line.strip() and not line.startswith(("#", *ours)):
            assert "# " in line, line
            comment = line.split("# ", 1)[1]
            assert "[" in comment or "not published" in comment or "x 8 GPUs" in comment, line


STARTS = {
    "think/sft": "allenai/Olmo-3-1025-7B",
    "think/dpo": "allenai/Olmo-3-7B-Think-SFT",
    "think/rl": "allenai/Olmo-3-7B-Think-DPO",
    "instruct/sft": "allenai/Olmo-3-7B-Think-SFT",  # not the base model
    "instruct/dpo": "allenai/Olmo-3-7B-Instruct-SFT",
    "instruct/rl": "allenai/Olmo-3-7B-Instruct-DPO",
    **{f"rl_zero/{name}": "allenai/Olmo-3-1025-7B" for name in ("math", "code", "if", "general", "mix")},
}


@pytest.mark.parametrize(("name", "model"), STARTS.items())
def test_each_stage_starts_where_it_should(name, model):
    assert read(ROOT / f"configs/olmo3/{name}.yaml")["model_name_or_path"] == model


def batch(settings, gpus=8):
    return settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] * gpus


def test_batches_come_to_the_published_size():
    for line in ("think", "instruct"):
        sft, dpo, rl = (read(ROOT / f"configs/olmo3/{line}/{stage}.yaml") for stage in ("sft", "dpo", "rl"))
        assert batch(sft) * sft["max_length"] == 1_048_576
        assert batch(dpo) == 128
        generations = (
            rl["per_device_train_batch_size"] * 8 * rl.get("steps_per_generation", rl["gradient_accumulation_steps"])
        )
        assert generations == 64 * rl["num_generations"]
        minibatches = {"think": 1, "instruct": 4}[line]
        assert generations / batch(rl) == minibatches
        assert rl["max_steps"] / minibatches == {"think": 1400, "instruct": 450}[line]
    for path in (ROOT / "configs/olmo3/rl_zero").glob("*.yaml"):
        assert batch(read(path)) == 32 * 8
    for stage, size in (("sft", 32), ("dpo", 128)):
        assert batch(read(ROOT / f"configs/olmo3/instruct/{stage}_lora.yaml"), gpus=1) == size


def test_accelerate_configs_are_read_by_accelerate():
    from accelerate.commands.config import load_config_from_file

    kinds = {}
    for path in (ROOT / "configs/accelerate").glob("*.yaml"):
        config = load_config_from_file(str(path))
        kinds[path.stem] = (str(config.distributed_type.value), config.num_processes, config.num_machines)
    assert kinds == {
        "cpu": ("NO", 1, 1), "one_gpu": ("NO", 1, 1), "ddp": ("MULTI_GPU", 8, 1), "zero2": ("DEEPSPEED", 8, 1),
        "zero3": ("DEEPSPEED", 8, 1), "fsdp2": ("FSDP", 8, 1), "multi_node": ("DEEPSPEED", 32, 4),
    }  # fmt: skip
