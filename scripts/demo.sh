#!/usr/bin/env bash
# The main job, end to end: three real TRL runs in the embedded world, watched; then one report over both lineages.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/demo}
export PATH="$PWD/.venv/bin:$PATH" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
launch=(accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no)
started=$SECONDS
rm -rf "$out"

echo "[1/4] Think SFT: two narrow teachers"
"${launch[@]}" recipes/sft.py --config configs/tiny/think/sft.yaml --output_dir "$out/think-sft" --watch_lineage think
echo "[2/4] Instruct SFT: broad sources"
"${launch[@]}" recipes/sft.py --config configs/tiny/instruct/sft.yaml --output_dir "$out/instruct-sft" --watch_lineage instruct
echo "[3/4] Instruct DPO: one strong teacher over weak answers"
"${launch[@]}" recipes/dpo.py --config configs/tiny/instruct/dpo.yaml --output_dir "$out/instruct-dpo" \
    --model_name_or_path "$out/instruct-sft"
echo "[4/4] Report"
divwatch report "$out"
echo "demo done in $((SECONDS - started)) s"
