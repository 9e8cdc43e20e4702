#!/usr/bin/env bash
# A real language model, watched: SFT of SmolLM2-135M-Instruct on a narrow and on a broad source of its own answers; one report.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/demo-real}
export PATH="$PWD/.venv/bin:$PATH" TOKENIZERS_PARALLELISM=false
launch=(accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no)
started=$SECONDS
rm -rf "$out"

echo "[1/4] Sources: the model's own answers"
python scripts/real_sources.py "$out"
step=2
for source in narrow broad; do
    echo "[$step/4] SFT on the $source source"
    "${launch[@]}" recipes/sft.py --config configs/smollm2/demo.yaml --mix "$out/$source.jsonl" \
        --output_dir "$out/$source" --watch_panel "$out/panel.jsonl" --watch_lineage "$source"
    step=$((step + 1))
done
echo "[4/4] Report"
divwatch report "$out"
echo "demo done in $((SECONDS - started)) s"
