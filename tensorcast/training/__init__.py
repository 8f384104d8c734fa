"""One training step from the traced forward pass: backward, optimizer, communication, memory. No torch.

What is assumed, in one place:

* One step takes `--batch` sequences of `--input-len` tokens, all of whose tokens have a loss. `--dp` counts copies of
  the whole model, each with its share of the batch, cut into `--micro-batches` passes whose gradients are added up.
  Experts live on `--ep` ranks: inside a copy, or across copies next to each other, which then share them.
* Formats are those of mixed-precision training: weights and gradients in the model's own, optimizer states and, where
  the model is narrower, a master copy of the weights in fp32. Per bf16 parameter AdamW holds 2 + 2 + 12 bytes, as in
  the ZeRO paper (arXiv 1910.02054), and moves 28 a step. No dropout, no clipping of gradients.
* Backward kernels run with the forward kernels' coefficients on their own sizes (`tensorcast.ops.backward`).
* Activations kept are the tensors each operator's gradient reads, once a storage; with `--grad-checkpoint full` those a
  layer starts with, and all of one layer, which is run again. The gradients of activations alive at a moment of the
  backward pass are those that were alive at the same moment of the forward pass.
* Pipeline stages run one forward and one backward in turn (1F1B): stage s of p keeps min(p - s, micro-batches) of them,
  and waits p - 1 passes in all.
* Gradients are added up over the copies beside the backward pass, layer by layer: all but one layer's piece of the
  shorter side is hidden. ZeRO 1 and 2 gather the updated weights afterwards, with nothing beside; ZeRO 3 gathers each
  layer's weights in both passes. ZeRO 2 and 3 reduce the gradients of every micro-batch. Tensor-parallel and expert
  collectives are not hidden.

The metric `model_flops_utilisation` is (6 N T / step) / (devices · peak), N the parameters one token uses, T the tokens
of the step; `hardware_flops_utilisation` counts every product that is run instead, recomputed ones too.

Published figures to compare with: Llama 3 405B on H100, bf16, sequences of 8192, 16 M tokens a step: 43 % of peak on
8,192 GPUs and 41 % on 16,384 (arXiv 2407.21783, table 4; TP 8, PP 16). Llama 2 on A100: 1,720,320 GPU hours for the 70B
and 184,320 for the 7B model over 2 T tokens (arXiv 2307.09288, table 2), which are 44 % and 39 % of peak. Here the
first has 34 % on 8,192 GPUs, with plain 1F1B where the run had interleaved stages; the last has 53 % with every layer
run again and more without: months of a run lose time that no kernel takes, and its settings are not published.
"""
