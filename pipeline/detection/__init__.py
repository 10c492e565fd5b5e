"""Training, resuming, export to ONNX and parity with PyTorch.

**Bits.** On a CPU, training is a function of its seed. The randomness of an epoch is a function of seed and epoch,
that of a sample one of seed, epoch and index, in data loading processes too. So a resumed training needs no
generator's state, and the number of loading processes changes nothing. Sums over several threads differ in the last
bits with the number of cores, and on a GPU.

**Sessions.** `train` decides what machine and data leave open, and runs a session: mmengine's runner with our hooks, in
this process or in one process a device. When memory runs out, the session runs again with half as many images at once
and continues at its last finished epoch. The gradient of a step stays the same but for batch norm statistics.

=====================================================  ==============================================================
choice                                                 reason
=====================================================  ==============================================================
channels-last memory, SiLU in one operation            what oneDNN and cuDNN are fast at; 1.3 to 1.7 times on a CPU
assignment for a whole batch at once                   mmdet loops over objects; same bits, 2.4 to 14 times faster
images fitted once and kept in memory                  decoding and resizing are most of loading
one parameter group for each learning rate             mmengine makes one for each parameter; the fused optimiser step
                                                       handles one group at a time
ignored regions leave the objectness loss              mmdet makes them hard negatives
convolution filters normalised before a batch norm     see `docs/finetuning.md`
=====================================================  ==============================================================

Beside other load on the same cores, OpenMP's threads wait for each other, and training may take ten times as long.
`OMP_WAIT_POLICY=PASSIVE` does not help: no faster on a busy machine, 1.5 times slower on a quiet one.
"""
