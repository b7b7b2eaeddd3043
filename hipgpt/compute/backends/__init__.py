"""The devices. Read cpu, gpu, cuda, hip, null, variants, launch_shapes, compile_commands."""
