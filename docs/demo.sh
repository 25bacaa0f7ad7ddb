#!/usr/bin/env bash
# The embedded demo, step by step: SFT, KTO, samples, comparisons. Every line is a command that a user would type.
set -euo pipefail
DEMO=${DEMO:-runs/demo} PYTHON=${PYTHON:-python} SEED=${SEED:-1}
SFT=${SFT:-} KTO=${KTO:-}  # more settings of the two runs, as key=value with spaces between: smaller sizes, other rates

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1. Supervised fine-tuning on the chosen answers"
$PYTHON train.py experiment=demo loss=sft exp_name=sft cache_dir="$DEMO" seed="$SEED" $SFT

say "2. KTO from where SFT was best on the validation prompts"
$PYTHON train.py experiment=demo loss=kto exp_name=kto cache_dir="$DEMO" seed="$SEED" model.load_from=sft/BEST $KTO

say "3. Answers to 256 prompts about combinations that training has never seen: untrained, SFT, KTO"
$PYTHON eval.py --config-path="$DEMO/sft" ++mode=sample ++exp_name=raw ++saved_policy=null ++samples_dir="$DEMO/samples"
$PYTHON eval.py --config-path="$DEMO/sft" ++mode=sample ++saved_policy=BEST ++samples_dir="$DEMO/samples"
$PYTHON eval.py --config-path="$DEMO/kto" ++mode=sample ++samples_dir="$DEMO/samples"

compare() { $PYTHON compare.py -j rule -mc 256 -ck policy -r "$DEMO/result.jsonl" "$@"; }
say "4. SFT against the untrained model"
compare -f "$DEMO/samples/sft.json" -f2 "$DEMO/samples/raw.json" -bk policy
say "5. KTO against SFT"
compare -f "$DEMO/samples/kto.json" -f2 "$DEMO/samples/sft.json" -bk policy --report "$DEMO/kto-against-sft.html"
say "6. KTO against the chosen answers"
compare -f "$DEMO/samples/kto.json" -bk chosen

say "7. Five prompts before (SFT) and after (KTO)"
$PYTHON -m prospect.report.before_after "$DEMO/samples/sft.json" "$DEMO/samples/kto.json"

say "Where everything is"
echo "  models       $DEMO/sft/BEST  $DEMO/kto/LATEST   (Hugging Face folders)"
echo "  metrics      $DEMO/sft/metrics.jsonl  $DEMO/kto/metrics.jsonl"
echo "  samples      $DEMO/samples/"
echo "  comparisons  $DEMO/result.jsonl  $DEMO/judgments/  $DEMO/kto-against-sft.html"
echo "  the rule     prospect/demo.py"
