"""FSDP2 over two processes whose images differ in number and shape: no hang, and the gradients of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
import sys
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from tiny import tiny_model
from PIL import Image
from convllava.data.batching import Collator, encode_sample
from convllava.data.samples import Sample, assistant_message, user_message

def sample(question, *sizes):
    images = tuple(Image.new("RGB", size, (40 * number, 90, 10)) for number, size in enumerate(sizes))
    return Sample(question, images, [user_message(question, len(sizes)), assistant_message("an answer")])

RANKS = [
    [sample("two", (64, 128), (192, 64)), sample("one", (128, 128))],
    [sample("no images here"), sample("none here either")],
]

def loss_of(model, processor, samples):
    batch = Collator(0)([encode_sample(each, processor, 512) for each in samples])
    batch.pop("sample_ids")
    return model(**batch, num_items_in_batch=1).loss

dist.init_process_group("gloo")
rank = dist.get_rank()
mesh = dist.init_device_mesh("cpu", (2,))
model, processor = tiny_model()
reference, _ = tiny_model()
inner = model.model
for module in (inner.vision_tower, inner.multi_modal_projector, *inner.language_model.layers, model):
    fully_shard(module, mesh=mesh)
loss_of(model.train(), processor, RANKS[rank]).backward()
dist.barrier()
expected = sum(loss_of(reference.train(), processor, samples) for samples in RANKS) / 2
expected.backward()
wanted = {name: parameter.grad for name, parameter in reference.named_parameters()}
for name, parameter in model.named_parameters():
    gradient = parameter.grad.full_tensor()
    scale = wanted[name].abs().max() + 1e-6
    assert (gradient - wanted[name]).abs().max() <= 1e-4 * scale + 1e-5, name
dist.destroy_process_group()
print("gradients agree", rank)
"""


@pytest.mark.slow
def test_uneven_ranks_agree_with_one_process(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, *launcher, str(script)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.count("gradients agree") == 2
