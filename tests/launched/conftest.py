"""Programs that are launched, not collected: importing them starts processes."""

collect_ignore = ["program.py", "fsdp2_on_cpu.py", "planting.py"]
