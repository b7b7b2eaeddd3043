"""Tensors, contracts, plans and devices; never sees a GPT.

Read tensor, contract, catalogue, fused_ops, launch, dependencies, plan, process_group, communicator, device,
open_device, backends/.
"""
