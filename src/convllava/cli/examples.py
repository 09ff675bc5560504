"""Two examples of each command, which its ``--help`` ends with."""

EXAMPLES: dict[str, tuple[str, str]] = {
    "": ('convllava ask photo.jpg "What does the sign say?"', "convllava serve"),
    "ask": (
        'convllava ask scan.pdf "What is the total?" --page 2-3',
        'convllava ask scans/ "What is the total?" --each --out totals.csv',
    ),
    "chat": ("convllava chat photo.jpg", "convllava chat before.png after.png --model my-checkpoint"),
    "demo": ("convllava demo", "convllava demo --seed 3 --out other-images"),
    "serve": ("convllava serve", "convllava serve --model my-checkpoint --host 0.0.0.0 --api-key-env KEY"),
    "train": (
        "convllava train recipe.yaml --dry-run",
        "torchrun --nproc-per-node 8 -m convllava.cli.main train recipe.yaml",
    ),
    "data": ("convllava data synth pages --kind document", "convllava data check data.json"),
    "data synth": (
        "convllava data synth pages --kind document --count 100",
        "convllava data synth lines --size 64x256 --set noise=0.2",
    ),
    "data check": (
        "convllava data check data.json",
        "convllava data check recipe.yaml --preview 2 --report found.json",
    ),
    "data convert": (
        "convllava data convert questions.csv train.jsonl --to llava",
        "convllava data convert data.json shards --to webdataset",
    ),
    "data stats": ("convllava data stats data.json", "convllava data stats recipe.yaml --out stats"),
    "eval": ("convllava eval run nano --suite synthetic", "convllava eval table scores"),
    "eval run": (
        "convllava eval run my-checkpoint --data questions.jsonl",
        "convllava eval run my-checkpoint --benchmark docvqa,textvqa --data ~/LMUData",
    ),
    "eval score": (
        "convllava eval score scores",
        "convllava eval score scores/mmbench.predictions.jsonl --profile current",
    ),
    "eval compare": (
        "convllava eval compare a/pope.predictions.jsonl b/pope.predictions.jsonl",
        "convllava eval compare a.jsonl b.jsonl --allow image.resolution",
    ),
    "eval table": ("convllava eval table scores", "convllava eval table scores --format latex --out table.tex"),
    "eval report": ("convllava eval report scores", "convllava eval report scores/pope.predictions.jsonl --limit 50"),
    "eval sweep": (
        "convllava eval sweep nano --benchmark pope --max-visual-tokens 16,36,144",
        "convllava eval sweep a b --benchmark docvqa --resolution 768,1024",
    ),
    "findings": ("convllava findings list", "convllava findings run --quick"),
    "findings list": ("convllava findings list", "convllava findings list --recipes my-findings"),
    "findings run": (
        "convllava findings run F5 F8",
        'convllava findings run F5 --like "from stage 3" common.seed=7',
    ),
    "convert": (
        "convllava convert ConvLLaVA/ConvLLaVA-sft-768 local-768",
        "convllava convert nano nano-int8 --quantize int8",
    ),
    "join": (
        "convllava join joined --vision-tower tower --language-model vicuna-7b",
        "convllava join joined --vision-tower tower.bin --language-model my-qwen",
    ),
    "inspect": ("convllava inspect nano", "convllava inspect my-checkpoint --json"),
    "verify": (
        "convllava verify original converted",
        "convllava verify joined --vision-tower tower --language-model vicuna-7b",
    ),
    "export": ("convllava export code nano with-code", "convllava export onnx nano encoder.onnx"),
    "export code": ("convllava export code nano with-code", "convllava export code nano with-code --dtype bfloat16"),
    "export backbone": (
        "convllava export backbone nano encoder",
        "convllava export backbone tower.safetensors encoder",
    ),
    "export onnx": (
        "convllava export onnx nano encoder.onnx",
        "convllava export onnx nano encoder.onnx --no-projector",
    ),
    "push": (
        "convllava push runs/mine me/mine --license apache-2.0 --dry-run",
        "convllava push runs/mine me/mine --license apache-2.0 --private",
    ),
    "cost": (
        "convllava cost photo.jpg",
        "convllava cost convllava-7b-1536 --height 1536 --width 1024 --new-tokens 100",
    ),
}
"""Examples by command, and by subcommand where there are any."""


def epilog(command: str) -> str:
    """Return the end of a command's help: its examples, on lines of their own."""
    return "\b\nExamples:\n" + "\n".join(f"  {example}" for example in EXAMPLES[command])
