"""Tensors, contracts, plans and devices; never sees a GPT.

Read tensor, contract, catalogue, launch, plan, device, open_device, backends/.
"""
