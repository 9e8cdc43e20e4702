"""Real launches on CPUs: torchrun for DDP and FSDP2, accelerate for DeepSpeed, ended by a time limit where they hang."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent / "program.py"
BIN = Path(sys.executable).parent
LIMIT = 420  # seconds on a busy machine; a hang would last forever


def launch(strategy, out, plan, processes=2, limit=LIMIT):
    """Runs the program; returns {arm: its results}. Raises AssertionError with the output if it fails or hangs."""
    done = start(strategy, out, plan, processes, limit)
    assert done.returncode == 0, done.stdout[-4000:]
    return read_results(out, plan["arms"])


def read_results(out, arms):
    """{arm: what rank 0 wrote at its end}."""
    return {arm: json.loads((out / f"{arm}.json").read_text()) for arm in arms}


def start(strategy, out, plan, processes=2, limit=LIMIT):
    """The finished process with its output, both streams in `stdout`."""
    out.mkdir(parents=True, exist_ok=True)
    command = [*launcher(strategy, out, processes), str(PROGRAM), str(out), json.dumps(plan | {"strategy": strategy})]
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"still running after {limit} s:\n{output[-4000:]}") from None
    return subprocess.CompletedProcess(command, process.returncode, output)


def launcher(strategy, out, processes):
    if strategy == "single":
        return [sys.executable]
    if strategy in ("ddp", "fsdp2"):
        return [str(BIN / "torchrun"), "--nproc_per_node", str(processes), "--master_port", _free_port()]
    stage = int(strategy.removeprefix("zero"))
    # A threshold of 0: by default nothing of a tiny model would be sharded.
    zero = {"stage": stage} | ({"stage3_param_persistence_threshold": 0} if stage == 3 else {})
    deepspeed = {"zero_optimization": zero, "bf16": {"enabled": False}, "fp16": {"enabled": False}}
    names = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    deepspeed |= dict.fromkeys(names, "auto")
    (out / "deepspeed.json").write_text(json.dumps(deepspeed))
    config = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": {"deepspeed_config_file": str(out / "deepspeed.json"), "zero3_init_flag": False},
        "num_processes": processes,
        "num_machines": 1,
        "machine_rank": 0,
        "use_cpu": True,
        "main_process_port": int(_free_port()),
    }
    (out / "accelerate.yaml").write_text(json.dumps(config))
    return [str(BIN / "accelerate"), "launch", "--config_file", str(out / "accelerate.yaml")]


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
