"""One peer's training, in the peers' environment: `python train_peer.py PEER MODEL ROWS STEPS BATCH`; prints one JSON line.

LoRA of rank 16 on all linear layers, loss on answers only, AdamW (fused), a constant rate, rows in the order of the file,
float32 on one thread unless the peer's own defaults are asked for. CPU seconds of each step, the optimizer's included.
"""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

peer, folder, rows_file, num_steps, batch = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")

import torch  # noqa: E402

torch.set_num_threads(1)
from datasets import Dataset  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from torch.utils.data import SequentialSampler  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

with Path(rows_file).open(encoding="utf-8") as file:
    rows = [json.loads(line) for line in file][: num_steps * batch]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


class Clock(TrainerCallback):
    def __init__(self):
        self.cpu, self.losses = [], []

    def on_step_begin(self, *_, **__):
        self.began = time.process_time()

    def on_step_end(self, *_, **__):
        self.cpu.append(time.process_time() - self.began)

    def on_log(self, _args, _state, _control, logs=None, **__):
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


class InOrder:
    def _get_train_sampler(self, *_, **__):
        return SequentialSampler(self.train_dataset)


clock = Clock()
said = {
    "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": batch, "max_steps": num_steps, "learning_rate": 2e-4,
    "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no", "report_to": [], "use_cpu": True,
    "optim": "adamw_torch_fused", "disable_tqdm": True, "seed": 0, "max_grad_norm": 1.0, "dataloader_pin_memory": False,
    "weight_decay": 0.0,
}  # fmt: skip
if peer.startswith("trl"):
    from trl import SFTConfig, SFTTrainer

    class InOrderSFT(InOrder, SFTTrainer):
        pass

    made = [
        {"input_ids": r["prompt"] + r["answer"], "completion_mask": [0] * len(r["prompt"]) + [1] * len(r["answer"])}
        for r in rows
    ]
    own = {} if peer == "trl-defaults" else {"bf16": False, "gradient_checkpointing": False}
    config = SFTConfig(**said, max_length=4096, completion_only_loss=True, **own)
    trainer = InOrderSFT(
        model=model, args=config, train_dataset=Dataset.from_list(made), processing_class=tokenizer, peft_config=lora,
        callbacks=[clock],
    )  # fmt: skip
else:

    class InOrderTrainer(InOrder, Trainer):
        pass

    made = [
        {
            "input_ids": r["prompt"] + r["answer"], "labels": [-100] * len(r["prompt"]) + r["answer"],
            "attention_mask": [1] * (len(r["prompt"]) + len(r["answer"])),
        }
        for r in rows
    ]  # fmt: skip
    trainer = InOrderTrainer(
        model=get_peft_model(model, lora), args=TrainingArguments(**said), train_dataset=Dataset.from_list(made),
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True), callbacks=[clock],
    )  # fmt: skip
trainer.train()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"cpu_s": clock.cpu, "losses": clock.losses, "peak_bytes": peak}))
