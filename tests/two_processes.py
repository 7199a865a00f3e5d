"""What `test_two_processes_train_one_policy` runs under torchrun: three PPO updates of the toy on each process."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed
from toy import toy_rows, toy_trainer  # the test puts examples/ on the path

from prewrite.train import processes

torch.set_num_threads(1)

out = Path(sys.argv[1])
trainer = toy_trainer(str(out / "run"), max_steps=3, eval_steps=2, dev_dataset=toy_rows(4), save_steps=2)
metrics = trainer.train()
rank = torch.distributed.get_rank()
weights = torch.cat([p.detach().double().flatten() for p in trainer.policy.parameters()])
(out / f"rank-{rank}.json").write_text(json.dumps({"sum": weights.sum().item(), "norm": weights.norm().item()}))
del trainer
processes.leave()
