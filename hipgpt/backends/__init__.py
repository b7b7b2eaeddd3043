"""Devices: how kernels are compiled, loaded and launched. See device.py for the protocol."""
